#include "kernels/route_sums.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/element_type_of.h"
#include "kernels/route_sums_arguments.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RouteSumsFunction : public torch::autograd::Function<RouteSumsFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& probs, const at::Tensor& ids,
                               const at::Tensor& gate, int64_t rows) {
    const at::TensorOptions options = probs.options().requires_grad(false);
    const int64_t experts = probs.size(1);
    RouteSumsArguments in = {};
    in.element = ElementTypeOf(probs.scalar_type(), "SumRoutes");
    in.rows = rows;
    in.row_tokens = rows == 0 ? 0 : probs.size(0) / rows;
    in.experts = experts;
    in.choices = ids.size(1);
    in.probs = probs.const_data_ptr();
    in.ids = ids.const_data_ptr<int64_t>();
    in.gate = gate.const_data_ptr();
    const at::Tensor tile_sums = at::empty({rows, in.tiles(), 2, experts}, options),
                     tile_choices = at::empty({rows, in.tiles(), experts}, options.dtype(at::kInt)),
                     sum_probs = at::empty({rows, experts}, options),
                     sum_gates = at::empty({rows, experts}, options),
                     sum_choices = at::empty({rows, experts}, options.dtype(at::kLong));
    in.tile_sums = tile_sums.mutable_data_ptr();
    in.tile_choices = tile_choices.mutable_data_ptr<int32_t>();
    in.sum_probs = sum_probs.mutable_data_ptr();
    in.sum_gates = sum_gates.mutable_data_ptr();
    in.sum_choices = sum_choices.mutable_data_ptr<int64_t>();
    (probs.is_cuda() ? cuda::SumRoutes : cpu::SumRoutes)(in);
    ctx->save_for_backward({ids});
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({sum_choices});
    return {sum_choices, sum_probs, sum_gates};
  }

  // A row's gradient is that of all its tokens.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor ids = ctx->get_saved_variables()[0];
    at::Tensor grad_probs, grad_gate;
    if (grads[1].defined()) {
      const int64_t rows = grads[1].size(0), experts = grads[1].size(1);
      grad_probs = grads[1]
                       .unsqueeze(1)
                       .expand({rows, rows == 0 ? 0 : ids.size(0) / rows, experts})
                       .reshape({ids.size(0), experts});
    }
    if (grads[2].defined()) {
      const int64_t rows = grads[2].size(0);
      grad_gate = at::gather(grads[2], 1, ids.view({rows, rows == 0 ? 0 : ids.numel() / rows}))
                      .view(ids.sizes());
    }
    return {grad_probs, {}, grad_gate, {}};
  }
};

}  // namespace

RouteSums SumRoutes(const at::Tensor& probs_TN, const at::Tensor& expert_ids_TK,
                    const at::Tensor& gate_TK, int64_t rows) {
  TORCH_CHECK(probs_TN.dim() == 2 && probs_TN.size(1) >= 1 &&
                  (probs_TN.scalar_type() == at::kFloat || probs_TN.scalar_type() == at::kDouble),
              "SumRoutes: probabilities have shape ", probs_TN.sizes(), " and dtype ",
              probs_TN.scalar_type(), ", expected [tokens, experts] of float32 or float64");
  TORCH_CHECK(
      expert_ids_TK.dim() == 2 && expert_ids_TK.size(0) == probs_TN.size(0) &&
          expert_ids_TK.scalar_type() == at::kLong && gate_TK.sizes() == expert_ids_TK.sizes() &&
          gate_TK.scalar_type() == probs_TN.scalar_type(),
      "SumRoutes: ids of shape ", expert_ids_TK.sizes(), ", ", expert_ids_TK.scalar_type(),
      ", and gates of shape ", gate_TK.sizes(), ", ", gate_TK.scalar_type(),
      ", do not fit probabilities of shape ", probs_TN.sizes(), ", ", probs_TN.scalar_type());
  const int64_t tokens = probs_TN.size(0);
  TORCH_CHECK(rows > 0 ? tokens % rows == 0 : rows == 0 && tokens == 0, "SumRoutes: ", tokens,
              " tokens cannot be cut into ", rows, " rows");
  const variable_list sums = RouteSumsFunction::apply(
      probs_TN.contiguous(), expert_ids_TK.contiguous(), gate_TK.contiguous(), rows);
  return {sums[0], sums[1], sums[2]};
}

}  // namespace hypermoe
