#include "kernels/grouped_ffn.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>
#include <optional>

#include "kernels/grouped_gemm_ffn.h"
#include "kernels/keyed_dropout.h"
#include "kernels/matrix_product.h"
#include "kernels/optional_tensor.h"
#include "kernels/small_ffn.h"
#include "kernels/weight_gradient.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Calls body(group, begin, rows) for every group that has rows.
template <typename Body>
void ForEachGroup(const std::vector<int64_t>& rows_per_group, const Body& body) {
  int64_t begin = 0;
  for (size_t g = 0; g < rows_per_group.size(); ++g) {
    if (rows_per_group[g] > 0) body(static_cast<int64_t>(g), begin, rows_per_group[g]);
    begin += rows_per_group[g];
  }
}

// The rows of every group that has some, as views, and what is computed from them.
using Pieces = std::vector<at::Tensor>;

// A group's matrix or bias of all of them, which have `axes` axes each; a single one may stand
// alone.
at::Tensor OfGroup(const at::Tensor& all, int64_t axes, int64_t g) {
  return !all.defined() || all.dim() == axes ? all : all.select(0, g);
}

// in W_g (+ bias_g) for every group.
Pieces GroupedLinear(const Pieces& in, const at::Tensor& weight, const at::Tensor& bias,
                     const std::vector<int64_t>& rows_per_group) {
  Pieces out;
  ForEachGroup(rows_per_group, [&](int64_t g, int64_t, int64_t) {
    out.push_back(MatrixProduct(in[out.size()], OfGroup(weight, 2, g), OfGroup(bias, 1, g)));
  });
  return out;
}

// grad W_g^T for every group.
Pieces GroupedLinearInputGrad(const Pieces& grad, const at::Tensor& weight,
                              const std::vector<int64_t>& rows_per_group) {
  Pieces grad_in;
  ForEachGroup(rows_per_group, [&](int64_t g, int64_t, int64_t) {
    grad_in.push_back(MatrixProduct(grad[grad_in.size()], OfGroup(weight, 2, g).t()));
  });
  return grad_in;
}

// Adds in^T grad to the gradient of W_g for every group, and returns what autograd is to add.
at::Tensor GroupedLinearWeightGrad(const Pieces& in, const Pieces& grad,
                                   const std::vector<int64_t>& rows_per_group,
                                   const at::Tensor& weight) {
  const WeightGradient gradient(weight);
  if (!gradient.IsNeeded()) return {};
  size_t piece = 0;
  ForEachGroup(rows_per_group, [&](int64_t g, int64_t, int64_t) {
    AddMatrixProduct(OfGroup(gradient.sum(), 2, g), in[piece].t(), grad[piece]);
    ++piece;
  });
  return gradient.ToReturn();
}

// Sums of grad's rows for every group, in the shape of the biases that go with `weight`; zero where
// a group is empty.
at::Tensor GroupedBiasGrad(const Pieces& grad, const std::vector<int64_t>& rows_per_group,
                           const at::Tensor& weight) {
  const at::ScalarType dtype = weight.scalar_type();
  std::vector<int64_t> shape = weight.sizes().vec();
  shape.erase(shape.end() - 2);
  const at::Tensor sums = at::zeros(shape, weight.options().requires_grad(false));
  size_t piece = 0;
  ForEachGroup(rows_per_group, [&](int64_t g, int64_t, int64_t) {
    at::Tensor out = OfGroup(sums, 1, g);
    at::sum_out(out, grad[piece++], 0, /*keepdim=*/false, dtype);
  });
  return sums;
}

Pieces Cut(const at::Tensor& rows, const std::vector<int64_t>& rows_per_group) {
  Pieces pieces;
  ForEachGroup(rows_per_group, [&](int64_t, int64_t begin, int64_t count) {
    pieces.push_back(rows.narrow(0, begin, count));
  });
  return pieces;
}

at::Tensor Join(const Pieces& pieces, int64_t width, const at::TensorOptions& options) {
  if (pieces.empty()) return at::empty({0, width}, options);
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces);
}

class GroupedFfnFunction : public torch::autograd::Function<GroupedFfnFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& up,
                            const std::optional<at::Tensor>& up_bias, const at::Tensor& down,
                            const std::optional<at::Tensor>& down_bias,
                            const std::vector<int64_t>& rows_per_group, int64_t activation,
                            const InnerDropout& dropout) {
    const at::ScalarType dtype = x.scalar_type();
    const at::Tensor up_cast = up.to(dtype), down_cast = down.to(dtype);
    const Pieces pre =
        GroupedLinear(Cut(x, rows_per_group), up_cast, Cast(up_bias, dtype), rows_per_group);
    const at::Tensor mask = DropoutMask({x.size(0), up.size(-1)}, dropout.probability, dropout.key,
                                        dropout.token_ids_R);
    const Pieces masks = mask.defined() ? Cut(mask, rows_per_group) : Pieces();
    Pieces hidden;
    for (size_t i = 0; i < pre.size(); ++i) {
      hidden.push_back(Activate(pre[i], static_cast<Activation>(activation)));
      if (mask.defined()) DropInto(hidden[i], hidden[i], masks[i], dropout.probability);
    }
    variable_list saved = {x, up, down, up_cast, down_cast, mask};
    saved.insert(saved.end(), pre.begin(), pre.end());
    saved.insert(saved.end(), hidden.begin(), hidden.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["rows_per_group"] = rows_per_group;
    ctx->saved_data["activation"] = activation;
    ctx->saved_data["dropout"] = dropout.probability;
    ctx->saved_data["up_bias"] = up_bias.has_value() && up_bias->requires_grad();
    ctx->saved_data["down_bias"] = down_bias.has_value() && down_bias->requires_grad();
    return Join(GroupedLinear(hidden, down_cast, Cast(down_bias, dtype), rows_per_group),
                down.size(-1), x.options());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &up = saved[1], &down = saved[2], &up_cast = saved[3],
                     &down_cast = saved[4];
    const at::Tensor& mask = saved[5];
    const auto first = saved.begin() + 6, middle = first + (saved.end() - first) / 2;
    const Pieces pre(first, middle), hidden(middle, saved.end());
    const std::vector<int64_t> rows = ctx->saved_data["rows_per_group"].toIntVector();
    const auto activation = static_cast<Activation>(ctx->saved_data["activation"].toInt());
    const double probability = ctx->saved_data["dropout"].toDouble();
    const Pieces grad = Cut(grads[0].contiguous(), rows);

    const at::Tensor grad_down = GroupedLinearWeightGrad(hidden, grad, rows, down);
    Pieces grad_pre = GroupedLinearInputGrad(grad, down_cast, rows);
    const Pieces masks = mask.defined() ? Cut(mask, rows) : Pieces();
    for (size_t i = 0; i < grad_pre.size(); ++i) {
      if (mask.defined()) DropInto(grad_pre[i], grad_pre[i], masks[i], probability);
      grad_pre[i] = ActivateBackward(grad_pre[i], pre[i], activation);
    }
    const at::Tensor grad_up = GroupedLinearWeightGrad(Cut(x, rows), grad_pre, rows, up);
    at::Tensor grad_x, grad_up_bias, grad_down_bias;
    if (ctx->saved_data["up_bias"].toBool()) grad_up_bias = GroupedBiasGrad(grad_pre, rows, up);
    if (ctx->saved_data["down_bias"].toBool()) grad_down_bias = GroupedBiasGrad(grad, rows, down);
    if (x.requires_grad())
      grad_x = Join(GroupedLinearInputGrad(grad_pre, up_cast, rows), x.size(1), x.options());
    return {grad_x, grad_up, grad_up_bias, grad_down, grad_down_bias, {}, {}, {}};
  }
};

void CheckTokenIds(const InnerDropout& dropout, const at::Tensor& x_RD) {
  if (dropout.probability == 0) return;
  const at::Tensor& ids = dropout.token_ids_R;
  TORCH_CHECK(ids.defined() && ids.dim() == 1 && ids.size(0) == x_RD.size(0) &&
                  ids.device() == x_RD.device(),
              "GroupedFfn: dropout expects the ids of tokens, one for each of ", x_RD.size(0),
              " rows on ", x_RD.device(), "; got ", ids.toString(),
              ids.defined() ? c10::str(" of shape ", ids.sizes(), " on ", ids.device()) : "");
}

}  // namespace

at::Tensor GroupedFfn(const at::Tensor& x_RD, const std::vector<int64_t>& rows_per_group,
                      const GroupedFfnWeights& weights, Activation activation,
                      const InnerDropout& dropout) {
  const int64_t total = std::accumulate(rows_per_group.begin(), rows_per_group.end(), int64_t{0});
  TORCH_CHECK(x_RD.dim() == 2 && total == x_RD.size(0), "GroupedFfn: groups hold ", total,
              " rows, x has shape ", x_RD.sizes());
  const at::Tensor &up = weights.up_GDF, &down = weights.down_GFD;
  const int64_t groups = up.dim() == 2 ? 1 : up.size(0);
  TORCH_CHECK(up.dim() == down.dim() && groups == static_cast<int64_t>(rows_per_group.size()) &&
                  up.size(-2) == x_RD.size(1) && down.size(-2) == up.size(-1),
              "GroupedFfn: ", rows_per_group.size(), " groups of width ", x_RD.size(1),
              " do not fit weights ", up.sizes(), " and ", down.sizes());
  TORCH_CHECK(weights.up_GF.defined() == weights.down_GD.defined(),
              "GroupedFfn: give both biases or none");
  CheckTokenIds(dropout, x_RD);
  if (IsSmallFfn(rows_per_group, weights))
    return SmallFfn(x_RD, rows_per_group, weights, activation, dropout);
  if (IsGroupedGemmFfn(x_RD, weights))
    return GroupedGemmFfn(x_RD, rows_per_group, weights, activation, dropout);
  return GroupedFfnFunction::apply(x_RD.contiguous(), up, OptionalTensor(weights.up_GF), down,
                                   OptionalTensor(weights.down_GD), rows_per_group,
                                   static_cast<int64_t>(activation), dropout);
}

}  // namespace hypermoe
