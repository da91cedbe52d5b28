// The learning rate of each step: linear warm-up, then a cosine.
#pragma once

#include <cstdint>

#include "configs/run.pb.h"

namespace hypermoe {

// Rate of step `step` (from 0) of `steps`: peak (step + 1) / (warmup + 1) during warm-up, then half
// a cosine from the peak to min_learning_rate, which the last step has.
double LearningRate(const OptimizerConfig& config, int64_t step, int64_t steps);

}  // namespace hypermoe
