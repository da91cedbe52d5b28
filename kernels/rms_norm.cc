#include "kernels/rms_norm.h"

#include <ATen/ops/mean.h>
#include <ATen/ops/promote_types.h>
#include <torch/csrc/autograd/custom_function.h>

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            double epsilon) {
    const at::ScalarType precise =
        at::promote_types(at::promote_types(x.scalar_type(), weight.scalar_type()), at::kFloat);
    const at::Tensor exact = x.to(precise);
    const at::Tensor inverse_T1 = exact.square().mean(-1, /*keepdim=*/true).add_(epsilon).rsqrt_();
    ctx->save_for_backward({x, weight, inverse_T1});
    return exact.mul(inverse_T1).mul_(weight).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse_T1 = saved[2];
    const at::ScalarType precise = inverse_T1.scalar_type();
    const at::Tensor normal = x.to(precise).mul(inverse_T1), grad = grads[0].to(precise);
    const at::Tensor product = grad.mul(normal);
    at::Tensor grad_x, grad_weight;
    if (weight.requires_grad()) grad_weight = product.sum(0).to(weight.scalar_type());
    if (x.requires_grad()) {
      // Of a row's gradient that of the normalised row g = grad * weight, less its part along the
      // row, which the normalisation takes no notice of.
      const at::Tensor along_T1 = product.mul(weight).mean(-1, /*keepdim=*/true);
      grad_x = grad.mul(weight).sub_(normal.mul(along_T1)).mul_(inverse_T1).to(x.scalar_type());
    }
    return {grad_x, grad_weight, {}};
  }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight_D, double epsilon) {
  TORCH_CHECK(x_TD.dim() == 2 && weight_D.dim() == 1 && x_TD.size(1) == weight_D.size(0),
              "RmsNorm: x of shape ", x_TD.sizes(), " and weight of shape ", weight_D.sizes(),
              "; expected [T,D] and [D]");
  return RmsNormFunction::apply(x_TD, weight_D, epsilon);
}

}  // namespace hypermoe
