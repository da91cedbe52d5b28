// Layer normalisation (Ba, Kiros and Hinton 2016, arXiv:1607.06450).
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// (x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis, of D elements, with
// mean, variance and the result before its rounding in the precision of the weights, which may be
// wider than that of x, or in float32 if that is wider; in x's dtype. Differentiable in x_RD,
// weight_D and bias_D.
at::Tensor LayerNorm(const at::Tensor& x_RD, const at::Tensor& weight_D, const at::Tensor& bias_D,
                     double epsilon);

}  // namespace hypermoe
