// Ends a run whose numbers have gone wrong: too many skipped steps in a row, or ranks whose copies
// of the parameters have drifted apart.
#pragma once

#include <cstdint>

#include "configs/run.pb.h"
#include "parallel/process_mesh.h"
#include "runtime/status.h"
#include "runtime/trainer.h"

namespace hypermoe {

class NumberGuard {
 public:
  // `trainer` and `mesh` must outlive this. Steps in a row are counted from here on, so anew in a
  // process that resumes: a skipped step changes nothing that a checkpoint holds, and who goes on
  // after the run was ended gets as many tries as before.
  NumberGuard(const TrainConfig& config, Trainer& trainer, const ProcessMesh& mesh)
      : config_(config), trainer_(trainer), mesh_(mesh) {}

  // To be called after every step, the `taken`th of the run. InternalError, before anything is
  // saved: with the first bad tensor after more than train.max_skipped_steps in a row, or with the
  // tensor and the ranks that differ every train.drift_check_every steps. Collective over the
  // world; the same result on every rank.
  absl::Status CheckStep(int64_t taken, const StepResult& result);

  // Whether all copies are the same after `taken` steps, unless this has just been looked at or
  // train.drift_check_every is 0: nothing that ranks disagree about may get into a checkpoint.
  // Otherwise as CheckStep.
  absl::Status CheckReplicas(int64_t taken);

 private:
  absl::Status TooManySkipped(int64_t taken, const StepResult& result);

  const TrainConfig& config_;
  Trainer& trainer_;
  const ProcessMesh& mesh_;
  int64_t skipped_in_a_row_ = 0;
  int64_t compared_ = -1;  // steps taken when copies were last compared
};

}  // namespace hypermoe
