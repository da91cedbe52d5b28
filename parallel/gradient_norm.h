// The norm of gradients that are sharded and replicated in different groups.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "parallel/gradient_bucket.h"

namespace hypermoe {

// All results are float64 [1] on the world's device, so that the host need not wait for them.

// This rank's share of the sum of squares over all global parameters: of the parts of the buckets
// that it owns, so that over the ranks each parameter counts once. Only those need to hold reduced
// gradients. Summed in float64; the same bits for every number of threads. Local.
at::Tensor OwnSumOfSquares(const std::vector<FlatBuffer>& buffers,
                           const std::vector<GradientBucket>& buckets, const Communicator& world);

// sqrt of the sum of all ranks' shares; the same bits on every rank. Collective over `world`.
at::Tensor GlobalGradientNorm(const std::vector<FlatBuffer>& buffers,
                              const std::vector<GradientBucket>& buckets, Communicator& world);

// What gradients of this norm are to be multiplied with so that it is at most max_norm: max_norm /
// norm if norm > max_norm > 0, otherwise 1. max_norm 0 means no clipping.
at::Tensor ClipScale(const at::Tensor& norm, double max_norm);

}  // namespace hypermoe
