// The sum of the squares of many arrays in one number: a norm over all gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace hypermoe {

// float64 [1] on `device`, which the host need not wait for. The arrays are of one dtype, float32
// or float64, contiguous and on `device`; there may be none, and empty ones. Squares and sums are
// made in float64, without a copy of an array. Not finite if and only if an element is not, or the
// sum is beyond float64. The same bits every time on the same kind of device, for any number of
// threads. Throws c10::Error for what does not fit together.
at::Tensor SumOfSquares(const std::vector<at::Tensor>& arrays, at::Device device);

}  // namespace hypermoe
