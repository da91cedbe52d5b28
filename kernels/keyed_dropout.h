// Dropout whose mask depends on the global row and the element, not on the layout.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/keyed_random.h"

namespace hypermoe {

// x: [rows * m, ...], floating point, where rows = row_ids_B.numel() and the n elements of each
// row are consecutive. row_ids_B: int64, on x's device. The same mask on every device. Element j of
// row b is zeroed if uniform(key, row_ids_B[b], j) < probability, otherwise divided by 1 -
// probability; 24 random bits an element. Differentiable; the mask is kept for backward, one byte
// an element. probability in [0, 1); 0 returns x itself.
at::Tensor KeyedDropout(const at::Tensor& x, double probability, const RandomKey& key,
                        const at::Tensor& row_ids_B);

// The two steps of it, for kernels with a backward of their own; not differentiable. The mask that
// an x of these sizes gets, on the device of row_ids_B: uint8, 1 where an element is kept;
// undefined if the probability is 0.
at::Tensor DropoutMask(at::IntArrayRef sizes, double probability, const RandomKey& key,
                       const at::Tensor& row_ids_B);
// Writes x (the gradient of what was kept, in backward) with the mask applied to `out` of the same
// shape, which may be x.
void DropInto(at::Tensor out, const at::Tensor& x, const at::Tensor& mask, double probability);

}  // namespace hypermoe
