// Whether a step is taken, and how far: decided where the gradients are, alike on all ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "parallel/gradient_bucket.h"

namespace hypermoe {

// On the world's device, so that the host need not wait for it.
struct StepDecision {
  at::Tensor losses;         // float64, sums over the ranks
  at::Tensor gradient_norm;  // float64 [1], before clipping
  at::Tensor clip_scale;     // float64 [1], see ClipScale
  at::Tensor skip;           // bool [1]: the norm or one of the losses is not finite
};

// From what `skip` is made. Only kTogether is right; the others let tests see how ranks part.
enum class SkipRule {
  kTogether,  // the numbers of all ranks
  kAlone,     // a rank's own, before they are summed
  kNever,
};

// From reduced gradients (only those of own parts are looked at) and this rank's shares of the
// losses (float64, flat, on the world's device). One all-reduce; collective over `world`.
StepDecision DecideStep(const std::vector<FlatBuffer>& buffers,
                        const std::vector<GradientBucket>& buckets, const at::Tensor& own_losses,
                        double max_norm, SkipRule rule, Communicator& world);

}  // namespace hypermoe
