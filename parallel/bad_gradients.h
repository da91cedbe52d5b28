// Which gradients are not finite.
#pragma once

#include <string>
#include <vector>

#include "parallel/gradient_bucket.h"

namespace hypermoe {

// The first tensor, in the model's order, whose reduced gradient has elements that are not finite:
// "h.0.mlp.experts.expert_3.c_fc.weight (4 NaN and 1 infinite of 384, found on rank 2)"; "" if
// there is none. Ranks look at the parts of the buckets that they own, and count only there. For
// when something is wrong: it reads everything. Collective over `world`; the same on every rank.
std::string FirstBadGradient(const std::vector<FlatBuffer>& buffers,
                             const std::vector<GradientBucket>& buckets, Communicator& world);

}  // namespace hypermoe
