// The checks of the fields of fine-tuning (config_loader.h has the others).
#pragma once

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// With data.task: that there is such a task, that the model can be trained on it, and that nothing
// is set which its rows do not look at. Without: that nothing is set which only a task looks at.
absl::Status CheckTaskFields(const RunConfig& config);

// That the model can do data.task, and that the fields of its examples and of decoding fit
// together: what holds in evaluation too.
absl::Status CheckTaskOfModel(const RunConfig& config);

// That warmup_fraction and warmup_steps are not both set.
absl::Status CheckWarmup(const OptimizerConfig& optimizer);

}  // namespace hypermoe
