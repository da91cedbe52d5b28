// Noise that depends on the global row and the element, not on the layout.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/keyed_random.h"

namespace hypermoe {

// x times uniform numbers from 1 - amplitude to 1 + amplitude, element j of row b by number j of
// the key derived from row_ids_B[b]; rows as in KeyedDropout. x: float32, float64 or bfloat16, on
// any device that row_ids_B (int64) is on too. Differentiable in x. amplitude in [0, 1); 0 returns
// x itself.
at::Tensor KeyedJitter(const at::Tensor& x, double amplitude, const RandomKey& key,
                       const at::Tensor& row_ids_B);

// Numbers of the standard normal distribution in the shape and dtype of x, on its device, drawn in
// the same order.
at::Tensor KeyedNormalLike(const at::Tensor& x, const RandomKey& key, const at::Tensor& row_ids_B);

}  // namespace hypermoe
