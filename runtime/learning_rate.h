// The learning rate of each step: warm-up, then a schedule.
#pragma once

#include <cstdint>

#include "configs/run.pb.h"

namespace hypermoe {

// Steps of the warm-up of a run of `steps`: warmup_steps, or the share of them that warmup_fraction
// says, rounded up.
int64_t WarmupSteps(const OptimizerConfig& config, int64_t steps);

// Rate of step s = `step` (from 0) of `steps`, with W = WarmupSteps:
//   s < W  peak (s + 1) / (W + 1), with warmup flat peak; then, with p = (s - W) / (steps - 1 - W),
//          held within [0, 1],
//   cosine        min + (peak - min) (1 + cos(pi p)) / 2
//   linear        min + (peak - min) (1 - p)
//   inverse_sqrt  max(min, peak sqrt((W + 1) / (s + 1))): with the warm-up, Vaswani et al.
//                 (arXiv:1706.03762), Eq. (3), scaled to the peak, for their steps s + 1 and W + 1
//   constant      peak
double LearningRate(const OptimizerConfig& config, int64_t step, int64_t steps);

}  // namespace hypermoe
