// The norm of gradients that are sharded and replicated in different groups.
#pragma once

#include <vector>

#include "parallel/gradient_bucket.h"

namespace hypermoe {

// sqrt of the sum of squares over all global parameters, each counted once, accumulated in float64.
// Every rank sums the parts of the buckets that it owns, so only those need to hold reduced
// gradients. The same bits on every rank and for every number of threads. Collective over `world`.
double GlobalGradientNorm(const std::vector<FlatBuffer>& buffers,
                          const std::vector<GradientBucket>& buckets, Communicator& world);

// What gradients of this norm are to be multiplied with so that it is at most max_norm: max_norm /
// norm if norm > max_norm > 0, otherwise 1. max_norm 0 means no clipping.
double ClipScale(double norm, double max_norm);

}  // namespace hypermoe
