#include "kernels/weight_gradient.h"

#include <ATen/ops/zeros_like.h>

namespace hypermoe {

WeightGradient::WeightGradient(const at::Tensor& weight)
    : in_place_(weight.is_leaf() && weight.requires_grad() && weight.grad().defined()) {
  if (weight.requires_grad()) sum_ = in_place_ ? weight.grad() : at::zeros_like(weight);
}

}  // namespace hypermoe
