// A pretraining run: the loop over steps, with validation, checkpoints, metrics and progress, in a
// run folder that it can be resumed from.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "parallel/process_mesh.h"
#include "runtime/status.h"
#include "runtime/step_profiler.h"
#include "runtime/stop_request.h"
#include "runtime/trainer.h"

namespace hypermoe {

struct PretrainOptions {
  RunConfig config;          // loaded and validated
  std::string run_dir;       // created if missing
  bool resume = true;        // go on from the newest intact checkpoint of run_dir, if it has any;
                             // false: run_dir must not hold a run
  int64_t stop_at_step = 0;  // save and return Stopped after this step; 0: run to the end
  ProfiledSteps profile;     // none by default
  // Of this rank; ranks may have different ones.
  std::vector<StopSource> stop_sources;
  int threads = 1;  // per rank, as set for this process: part of exact resume
  // For tests, which damage a model in training: called after every step, before anything is
  // checked or saved; empty: nobody.
  std::function<void(int64_t steps_taken, Trainer& trainer)> after_step;
};

// Trains, writes run_dir (config.textproto, metrics.jsonl, events.out.tfevents.*, checkpoints/,
// traces/) and reports progress on stderr of world rank 0, the result on its stdout. A run that has
// reached its end only reports.
//
// Where a stop source of any rank asks, the run is saved as it is after the step reached and ends
// with Stopped: after at most one more step or one pass of an evaluation. A validation that is due
// or under way is left to the run that goes on. A run that has not taken a step yet saves nothing.
// Finding out takes no collective of its own in a step, and one small all-reduce in each pass of an
// evaluation, after a validation or checkpoint, after the data is opened and before the first step.
//
// Collective over the world; every rank returns the same status.
absl::Status Pretrain(const PretrainOptions& options, const ProcessMesh& mesh);

}  // namespace hypermoe
