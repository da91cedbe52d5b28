// The element-wise functions between the two matrices of a feed-forward network.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

enum class Activation {
  kGeluTanh,  // GPT-2's gelu_new: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kGelu,      // x Phi(x)
  kRelu,
};

// activation(x), any floating-point dtype, and written to `out` of the same shape. Not
// differentiable.
at::Tensor Activate(const at::Tensor& x, Activation activation);
void ActivateInto(at::Tensor out, const at::Tensor& x, Activation activation);

// grad * activation'(x), and written to `out`, which may be grad.
at::Tensor ActivateBackward(const at::Tensor& grad, const at::Tensor& x, Activation activation);
void ActivateBackwardInto(at::Tensor out, const at::Tensor& grad, const at::Tensor& x,
                          Activation activation);

}  // namespace hypermoe
