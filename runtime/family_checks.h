// What a model's family makes of its fields.
#pragma once

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// That nothing is set which the family does not look at, and that the rest fits together.
absl::Status CheckFamily(const ModelConfig& model);

}  // namespace hypermoe
