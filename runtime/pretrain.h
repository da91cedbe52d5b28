// A pretraining run: the loop over steps, with validation, checkpoints, metrics and progress, in a
// run folder that it can be resumed from.
#pragma once

#include <cstdint>
#include <string>

#include "configs/run.pb.h"
#include "parallel/process_mesh.h"
#include "runtime/status.h"
#include "runtime/step_profiler.h"

namespace hypermoe {

struct PretrainOptions {
  RunConfig config;     // loaded and validated
  std::string run_dir;  // created if missing
  bool resume = true;   // go on from the newest checkpoint of run_dir, if any; false: run_dir must
                        // not hold a run
  int64_t stop_at_step = 0;  // save and return Stopped after this step; 0: run to the end
  ProfiledSteps profile;     // none by default
  int threads = 1;           // per rank, as set for this process: part of exact resume
};

// Trains, writes run_dir (config.textproto, metrics.jsonl, events.out.tfevents.*, checkpoints/,
// traces/) and
// reports progress on stderr of world rank 0, the result on its stdout. A run that has reached its
// end only reports. Collective over the world; every rank returns the same status.
absl::Status Pretrain(const PretrainOptions& options, const ProcessMesh& mesh);

}  // namespace hypermoe
