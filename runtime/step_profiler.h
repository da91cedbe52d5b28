// `pretrain --profile_steps`: a Chrome trace of some steps from every rank.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "parallel/process_mesh.h"
#include "runtime/status.h"
#include "runtime/trace_file.h"
#include "runtime/trainer.h"

namespace hypermoe {

// Steps first to last of a run, counted from 1. first 0: none.
struct ProfiledSteps {
  int64_t first = 0;
  int64_t last = 0;
};

class StepProfiler {
 public:
  // Writes run_dir/traces/steps_FIRST-LAST.rank_RANK.json. `trainer` and the groups of `mesh` must
  // outlive this; their observers are this object's while it profiles.
  StepProfiler(const ProfiledSteps& steps, const std::string& run_dir, const ProcessMesh& mesh,
               Trainer& trainer);
  ~StepProfiler();

  // Whether the step is one to profile.
  bool Covers(int64_t step) const { return step >= steps_.first && step <= steps_.last; }

  // Call around each step that it covers, counted from 1. Begin is collective over the world before
  // the first one, whose start is the time 0 of all ranks' files. End writes the file after the
  // last one.
  absl::Status Begin();
  absl::Status End(int64_t step);

 private:
  void Observe();
  void StopObserving();

  ProfiledSteps steps_;
  std::string run_dir_;
  ProcessMesh mesh_;
  Trainer& trainer_;
  std::unique_ptr<TraceFile> file_;  // while it profiles
  double step_begin_ = 0;
};

}  // namespace hypermoe
