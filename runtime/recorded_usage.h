// How a run's tokens have fallen on its experts, from what it has recorded (metrics.jsonl).
//
// Legend: L sparse layers, N experts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/matrix.h"
#include "runtime/status.h"

namespace hypermoe {

struct RecordedUsage {
  // A step's figures; NaN for what its line does not have.
  struct Step {
    int64_t step = 0;
    double load_max_over_mean = 0, idle_experts = 0, dropped_share = 0, hyper_share = 0;
  };
  std::vector<Step> steps;
  // Over the last steps, kDeadAfterSteps (expert_watch.h) at most.
  int64_t last_steps = 0;
  Matrix tokens_LN;
  std::vector<double> dropped_L;
  std::vector<double> hyper_shares_L;  // of the last step; empty: not recorded
};

// Reads path, up to the line of step `last_step`. Nothing for a file that does not exist or has no
// line of a training step with sparse layers. DataError names the first line that is not what a run
// writes; a last line that is cut off is left out. Local.
absl::StatusOr<std::optional<RecordedUsage>> ReadRecordedUsage(const std::string& path,
                                                               int64_t last_step);

}  // namespace hypermoe
