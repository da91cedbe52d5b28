#include "kernels/grouped_ffn.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>
#include <optional>

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor Activate(const at::Tensor& x, Activation activation) {
  return activation == Activation::kRelu ? at::relu(x) : at::gelu(x, "tanh");
}

at::Tensor ActivateBackward(const at::Tensor& grad, const at::Tensor& x, Activation activation) {
  return activation == Activation::kRelu ? at::threshold_backward(grad, x, 0)
                                         : at::gelu_backward(grad, x, "tanh");
}

// Calls body(group, begin, rows) for every group that has rows.
template <typename Body>
void ForEachGroup(const std::vector<int64_t>& rows_per_group, const Body& body) {
  int64_t begin = 0;
  for (size_t g = 0; g < rows_per_group.size(); ++g) {
    if (rows_per_group[g] > 0) body(static_cast<int64_t>(g), begin, rows_per_group[g]);
    begin += rows_per_group[g];
  }
}

// out = in W_g (+ bias_g) for every group.
void GroupedLinear(const at::Tensor& in, const at::Tensor& weight, const at::Tensor& bias,
                   const std::vector<int64_t>& rows_per_group, const at::Tensor& out) {
  ForEachGroup(rows_per_group, [&](int64_t g, int64_t begin, int64_t rows) {
    at::Tensor out_rows = out.narrow(0, begin, rows);
    const at::Tensor in_rows = in.narrow(0, begin, rows);
    if (bias.defined()) {
      at::addmm_out(out_rows, bias.select(0, g), in_rows, weight.select(0, g));
    } else {
      at::mm_out(out_rows, in_rows, weight.select(0, g));
    }
  });
}

// grad_in = grad W_g^T for every group.
at::Tensor GroupedLinearInputGrad(const at::Tensor& grad, const at::Tensor& weight,
                                  const std::vector<int64_t>& rows_per_group) {
  at::Tensor grad_in = at::empty({grad.size(0), weight.size(1)}, grad.options());
  ForEachGroup(rows_per_group, [&](int64_t g, int64_t begin, int64_t rows) {
    at::Tensor out = grad_in.narrow(0, begin, rows);
    at::mm_out(out, grad.narrow(0, begin, rows), weight.select(0, g).t());
  });
  return grad_in;
}

// grad_W_g = in^T grad, grad_bias_g = sum of grad's rows, for every group; zero where a group is
// empty.
void GroupedLinearWeightGrad(const at::Tensor& in, const at::Tensor& grad,
                             const std::vector<int64_t>& rows_per_group,
                             const at::Tensor& grad_weight, const at::Tensor& grad_bias) {
  for (size_t g = 0; g < rows_per_group.size(); ++g) {
    if (rows_per_group[g] > 0) continue;
    grad_weight.select(0, static_cast<int64_t>(g)).zero_();
    if (grad_bias.defined()) grad_bias.select(0, static_cast<int64_t>(g)).zero_();
  }
  ForEachGroup(rows_per_group, [&](int64_t g, int64_t begin, int64_t rows) {
    const at::Tensor grad_rows = grad.narrow(0, begin, rows);
    at::Tensor out = grad_weight.select(0, g);
    at::mm_out(out, in.narrow(0, begin, rows).t(), grad_rows);
    if (grad_bias.defined()) {
      at::Tensor bias_out = grad_bias.select(0, g);
      at::sum_out(bias_out, grad_rows, 0);
    }
  });
}

class GroupedFfnFunction : public torch::autograd::Function<GroupedFfnFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& up,
                            const std::optional<at::Tensor>& up_bias, const at::Tensor& down,
                            const std::optional<at::Tensor>& down_bias,
                            const std::vector<int64_t>& rows_per_group, int64_t activation) {
    at::Tensor pre = at::empty({x.size(0), up.size(2)}, x.options());
    GroupedLinear(x, up, up_bias.value_or(at::Tensor()), rows_per_group, pre);
    const at::Tensor hidden = Activate(pre, static_cast<Activation>(activation));
    at::Tensor y = at::empty({x.size(0), down.size(2)}, x.options());
    GroupedLinear(hidden, down, down_bias.value_or(at::Tensor()), rows_per_group, y);
    ctx->save_for_backward({x, up, down, pre, hidden});
    ctx->saved_data["rows_per_group"] = rows_per_group;
    ctx->saved_data["activation"] = activation;
    ctx->saved_data["bias"] = up_bias.has_value();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &up = saved[1], &down = saved[2], &pre = saved[3],
                     &hidden = saved[4];
    const std::vector<int64_t> rows = ctx->saved_data["rows_per_group"].toIntVector();
    const auto activation = static_cast<Activation>(ctx->saved_data["activation"].toInt());
    const bool bias = ctx->saved_data["bias"].toBool();
    const at::Tensor grad = grads[0].contiguous();

    at::Tensor grad_down = at::empty_like(down), grad_up = at::empty_like(up), grad_down_bias,
               grad_up_bias;
    if (bias) {
      grad_up_bias = at::empty({up.size(0), up.size(2)}, up.options());
      grad_down_bias = at::empty({down.size(0), down.size(2)}, down.options());
    }
    GroupedLinearWeightGrad(hidden, grad, rows, grad_down, grad_down_bias);
    const at::Tensor grad_pre =
        ActivateBackward(GroupedLinearInputGrad(grad, down, rows), pre, activation);
    GroupedLinearWeightGrad(x, grad_pre, rows, grad_up, grad_up_bias);
    return {GroupedLinearInputGrad(grad_pre, up, rows),
            grad_up,
            grad_up_bias,
            grad_down,
            grad_down_bias,
            {},
            {}};
  }
};

}  // namespace

at::Tensor GroupedFfn(const at::Tensor& x_RD, const std::vector<int64_t>& rows_per_group,
                      const GroupedFfnWeights& weights, Activation activation) {
  const int64_t total = std::accumulate(rows_per_group.begin(), rows_per_group.end(), int64_t{0});
  TORCH_CHECK(x_RD.dim() == 2 && total == x_RD.size(0), "GroupedFfn: groups hold ", total,
              " rows, x has shape ", x_RD.sizes());
  TORCH_CHECK(weights.up_GDF.size(0) == static_cast<int64_t>(rows_per_group.size()) &&
                  weights.up_GDF.size(1) == x_RD.size(1) &&
                  weights.down_GFD.size(1) == weights.up_GDF.size(2),
              "GroupedFfn: ", rows_per_group.size(), " groups of width ", x_RD.size(1),
              " do not fit weights ", weights.up_GDF.sizes(), " and ", weights.down_GFD.sizes());
  TORCH_CHECK(weights.up_GF.defined() == weights.down_GD.defined(),
              "GroupedFfn: give both biases or none");
  const at::ScalarType dtype = x_RD.scalar_type();
  // Autograd takes an absent input as an empty optional, not as an undefined tensor.
  std::optional<at::Tensor> up_bias, down_bias;
  if (weights.up_GF.defined()) {
    up_bias = weights.up_GF.to(dtype);
    down_bias = weights.down_GD.to(dtype);
  }
  return GroupedFfnFunction::apply(x_RD.contiguous(), weights.up_GDF.to(dtype), up_bias,
                                   weights.down_GFD.to(dtype), down_bias, rows_per_group,
                                   static_cast<int64_t>(activation));
}

}  // namespace hypermoe
