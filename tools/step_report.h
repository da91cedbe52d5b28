// What is printed of models whose steps were timed beside each other.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "tools/timed_model.h"

namespace hypermoe {

// On stdout: `machine` (DescribeMachine) with this process's peak memory, each model's figures, and
// the time a token of each over that of each one before it, of steps that ran beside each other.
// JSON lines, or a table.
absl::Status PrintSteps(const std::vector<TimedModel>& models, bool json, nlohmann::json machine);

}  // namespace hypermoe
