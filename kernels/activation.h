// The element-wise functions between the two matrices of a feed-forward network.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/activation_kind.h"

namespace hypermoe {

// activation(x), any floating-point dtype, and written to `out` of the same shape. Not
// differentiable.
at::Tensor Activate(const at::Tensor& x, Activation activation);
void ActivateInto(at::Tensor out, const at::Tensor& x, Activation activation);

// grad * activation'(x), and written to `out`, which may be grad.
at::Tensor ActivateBackward(const at::Tensor& grad, const at::Tensor& x, Activation activation);
void ActivateBackwardInto(at::Tensor out, const at::Tensor& grad, const at::Tensor& x,
                          Activation activation);

}  // namespace hypermoe
