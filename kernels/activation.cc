#include "kernels/activation.h"

#include <ATen/ops/clamp_min.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/threshold_backward.h>

namespace hypermoe {
namespace {

const char* GeluForm(Activation activation) {
  return activation == Activation::kGelu ? "none" : "tanh";
}

}  // namespace

void ActivateInto(at::Tensor out, const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      at::clamp_min_out(out, x, 0);
      return;
    case Activation::kSilu:
      at::silu_out(out, x);
      return;
    default:
      at::gelu_out(out, x, GeluForm(activation));
  }
}

at::Tensor Activate(const at::Tensor& x, Activation activation) {
  at::Tensor out = at::empty_like(x);
  ActivateInto(out, x, activation);
  return out;
}

void ActivateBackwardInto(at::Tensor out, const at::Tensor& grad, const at::Tensor& x,
                          Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      at::threshold_backward_out(out, grad, x, 0);
      return;
    case Activation::kSilu:
      at::silu_backward_out(out, grad, x);
      return;
    default:
      at::gelu_backward_out(out, grad, x, GeluForm(activation));
  }
}

at::Tensor ActivateBackward(const at::Tensor& grad, const at::Tensor& x, Activation activation) {
  at::Tensor out = at::empty_like(x);
  ActivateBackwardInto(out, grad, x, activation);
  return out;
}

}  // namespace hypermoe
