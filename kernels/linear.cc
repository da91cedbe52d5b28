#include "kernels/linear.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "kernels/few_rows_linear.h"
#include "kernels/matrix_product.h"
#include "kernels/optional_tensor.h"
#include "kernels/weight_gradient.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// weight is [D,E], or [E,D] if `transposed`.
class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, bool transposed) {
    const at::Tensor cast = weight.to(x.scalar_type());
    ctx->save_for_backward({x, weight, cast});
    ctx->saved_data["transposed"] = transposed;
    if (bias.has_value() && bias->requires_grad())
      ctx->saved_data["bias_dtype"] = static_cast<int64_t>(bias->scalar_type());
    const at::Tensor bias_cast = Cast(bias, x.scalar_type());
    if (transposed && IsFewRowsLinear(x, weight)) return FewRowsLinear(x, weight, bias_cast);
    return MatrixProduct(x, transposed ? cast.t() : cast, bias_cast);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &cast = saved[2];
    const bool transposed = ctx->saved_data["transposed"].toBool();
    const at::Tensor grad = grads[0].contiguous();
    const WeightGradient grad_weight(weight);
    at::Tensor grad_x, grad_bias;
    if (transposed && IsFewRowsLinear(x, weight)) {
      grad_x = FewRowsLinearBackward(grad, x, weight, x.requires_grad(), grad_weight.sum());
    } else {
      if (x.requires_grad()) grad_x = MatrixProduct(grad, transposed ? cast : cast.t());
      if (grad_weight.IsNeeded() && transposed) AddMatrixProduct(grad_weight.sum(), grad.t(), x);
      if (grad_weight.IsNeeded() && !transposed) AddMatrixProduct(grad_weight.sum(), x.t(), grad);
    }
    const auto bias_dtype = ctx->saved_data.find("bias_dtype");
    if (bias_dtype != ctx->saved_data.end()) {
      grad_bias = at::sum(grad, 0, /*keepdim=*/false,
                          static_cast<at::ScalarType>(bias_dtype->second.toInt()));
    }
    return {grad_x, grad_weight.ToReturn(), grad_bias, {}};
  }
};

class EmbeddingRowsFunction : public torch::autograd::Function<EmbeddingRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight, const at::Tensor& ids) {
    ctx->save_for_backward({weight, ids});
    return at::embedding(weight, ids);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& weight = saved[0];
    const WeightGradient grad_weight(weight);
    const at::Tensor ids = saved[1].reshape({-1}), rows = grads[0].reshape({-1, weight.size(1)});
    if (weight.is_cpu()) {
      grad_weight.sum().index_add_(0, ids, rows);
    } else {
      // On a GPU adding by index goes in no order; this sorts the ids first.
      grad_weight.sum().add_(at::embedding_dense_backward(rows, ids, weight.size(0),
                                                          /*padding_idx=*/-1,
                                                          /*scale_grad_by_freq=*/false));
    }
    return {grad_weight.ToReturn(), {}};
  }
};

}  // namespace

at::Tensor Linear(const at::Tensor& x_RD, const at::Tensor& weight_DE, const at::Tensor& bias_E) {
  return LinearFunction::apply(x_RD.contiguous(), weight_DE, OptionalTensor(bias_E),
                               /*transposed=*/false);
}

at::Tensor LinearTransposed(const at::Tensor& x_RD, const at::Tensor& weight_VD,
                            const at::Tensor& bias_V) {
  return LinearFunction::apply(x_RD.contiguous(), weight_VD, OptionalTensor(bias_V),
                               /*transposed=*/true);
}

at::Tensor EmbeddingRows(const at::Tensor& weight_VD, const at::Tensor& ids) {
  return EmbeddingRowsFunction::apply(weight_VD, ids);
}

}  // namespace hypermoe
