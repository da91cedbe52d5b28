// Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467), T5's layer norm.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// x / sqrt(mean(x^2) + epsilon) * weight over the last axis, of D elements, with the mean and the
// result before its rounding in the widest of float32 and the dtypes of x and weight; in x's dtype.
// T may be 0. Differentiable in both; what does not require grad costs nothing in backward, which
// keeps x and one number a row.
at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight_D, double epsilon);

}  // namespace hypermoe
