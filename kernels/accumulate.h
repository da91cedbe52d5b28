// Sums in float32 of what is made in bfloat16.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// sum += addend, of the same shape; the sum's dtype may be wider. What LibTorch's add_ gives, bit
// for bit, but on a CPU bfloat16 is read as it is, without a float32 tensor in between, where both
// are contiguous. Not differentiable.
void Accumulate(const at::Tensor& sum, const at::Tensor& addend);

}  // namespace hypermoe
