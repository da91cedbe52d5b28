#include "kernels/route_tokens.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "kernels/element_type_of.h"
#include "kernels/optional_tensor.h"
#include "kernels/route_tokens_arguments.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

RouteTokensSizes SizesOf(const at::Tensor& probs, int64_t choices, bool renormalize) {
  return {ElementTypeOf(probs.scalar_type(), "RouteTokens"), probs.size(0), probs.size(1), choices,
          renormalize};
}

class RouteTokensFunction : public torch::autograd::Function<RouteTokensFunction> {
 public:
  // probs, gate, log_sum, and ids unless they are given.
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const std::optional<at::Tensor>& chosen, int64_t choices,
                               bool renormalize) {
    const at::TensorOptions options = logits.options().requires_grad(false);
    const int64_t tokens = logits.size(0);
    const at::Tensor probs = at::empty(logits.sizes(), options),
                     gate = at::empty({tokens, choices}, options),
                     log_sum = at::empty({tokens}, options);
    const at::Tensor ids =
        chosen.has_value() ? *chosen : at::empty({tokens, choices}, options.dtype(at::kLong));
    (logits.is_cuda() ? cuda::RouteTokens : cpu::RouteTokens)(
        SizesOf(probs, choices, renormalize),
        {logits.const_data_ptr(), chosen.has_value() ? ids.const_data_ptr<int64_t>() : nullptr,
         probs.mutable_data_ptr(), gate.mutable_data_ptr(), log_sum.mutable_data_ptr(),
         chosen.has_value() ? nullptr : ids.mutable_data_ptr<int64_t>()});
    ctx->save_for_backward({probs, ids});
    ctx->saved_data["renormalize"] = renormalize;
    // Losses look at some of the outputs only.
    ctx->set_materialize_grads(false);
    if (chosen.has_value()) return {probs, gate, log_sum};
    ctx->mark_non_differentiable({ids});
    return {probs, gate, log_sum, ids};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &probs = saved[0], &ids = saved[1];
    const at::Tensor grad_logits = at::empty_like(probs);
    for (at::Tensor& grad : grads) {
      if (grad.defined()) grad = grad.contiguous();
    }
    const auto data = [](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.const_data_ptr() : nullptr;
    };
    (probs.is_cuda() ? cuda::RouteTokensBackward : cpu::RouteTokensBackward)(
        SizesOf(probs, ids.size(1), ctx->saved_data["renormalize"].toBool()),
        {probs.const_data_ptr(), ids.const_data_ptr<int64_t>(), data(grads[0]), data(grads[1]),
         data(grads[2]), grad_logits.mutable_data_ptr()});
    return {grad_logits, {}, {}, {}};
  }
};

}  // namespace

TokenRoutes RouteTokens(const at::Tensor& logits_TN, int64_t choices, bool renormalize,
                        const at::Tensor& chosen_TK) {
  TORCH_CHECK(logits_TN.dim() == 2 &&
                  (logits_TN.scalar_type() == at::kFloat || logits_TN.scalar_type() == at::kDouble),
              "RouteTokens: logits have shape ", logits_TN.sizes(), " and dtype ",
              logits_TN.scalar_type(), ", expected [tokens, experts] of float32 or float64");
  TORCH_CHECK(choices >= 1 && choices <= logits_TN.size(1), "RouteTokens: ", choices,
              " choices of ", logits_TN.size(1), " experts");
  TORCH_CHECK(!chosen_TK.defined() ||
                  (chosen_TK.scalar_type() == at::kLong && chosen_TK.dim() == 2 &&
                   chosen_TK.size(0) == logits_TN.size(0) && chosen_TK.size(1) == choices &&
                   chosen_TK.device() == logits_TN.device()),
              "RouteTokens: chosen experts of shape ", chosen_TK.sizes(), ", ",
              chosen_TK.scalar_type(), ", for ", choices, " choices of logits of shape ",
              logits_TN.sizes(), ", expected int64 on the same device");
  const at::Tensor chosen = chosen_TK.defined() ? chosen_TK.contiguous() : chosen_TK;
  const variable_list outputs = RouteTokensFunction::apply(
      logits_TN.contiguous(), OptionalTensor(chosen), choices, renormalize);
  return {outputs[0], chosen.defined() ? chosen_TK : outputs[3], outputs[1], outputs[2]};
}

}  // namespace hypermoe
