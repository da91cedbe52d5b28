#include "kernels/grouped_gemm_ffn.h"

#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <optional>

#include "kernels/element_type_of.h"
#include "kernels/grouped_rows_arguments.h"
#include "kernels/keyed_dropout.h"
#include "kernels/optional_tensor.h"
#include "kernels/weight_gradient.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kMostGroups = 1023;    // of at::_grouped_mm
constexpr int64_t kAlignedElements = 8;  // 16 bytes of bfloat16

// int32 [G]: the row after each group's last.
at::Tensor EndsOf(const std::vector<int64_t>& rows_per_group, at::Device device) {
  std::vector<int32_t> ends;
  int32_t end = 0;
  for (const int64_t rows : rows_per_group) {
    end += static_cast<int32_t>(rows);
    ends.push_back(end);
  }
  const at::Tensor on_host = at::tensor(ends, at::kInt);
  if (device.is_cpu()) return on_host;
  return on_host.pin_memory().to(device, /*non_blocking=*/true);
}

GroupedRows RowsOf(const at::Tensor& rows, const at::Tensor& ends_G) {
  return {ElementTypeOf(rows.scalar_type(), "GroupedGemmFfn"), rows.size(0), rows.size(1),
          ends_G.numel(), ends_G.const_data_ptr<int32_t>()};
}

// Adds each group's bias to its rows, in place, and writes activation(rows) to hidden if defined.
void AddBias(const at::Tensor& rows, const at::Tensor& bias, const at::Tensor& ends_G,
             Activation activation, const at::Tensor& hidden) {
  if (!bias.defined() && !hidden.defined()) return;
  (rows.is_cuda() ? cuda::AddBiasAndActivate : cpu::AddBiasAndActivate)(
      RowsOf(rows, ends_G), rows.mutable_data_ptr(),
      bias.defined() ? bias.const_data_ptr() : nullptr, activation,
      hidden.defined() ? hidden.mutable_data_ptr() : nullptr);
}

// What autograd is to add to the biases that go with `weight`.
at::Tensor BiasGradient(const at::Tensor& grad, const at::Tensor& ends_G,
                        const at::Tensor& weight) {
  const at::ScalarType sum_type = grad.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor sums = at::empty({ends_G.numel(), grad.size(1)}, grad.options().dtype(sum_type));
  (grad.is_cuda() ? cuda::SumRowsOfGroups : cpu::SumRowsOfGroups)(
      RowsOf(grad, ends_G), grad.const_data_ptr(), sums.mutable_data_ptr());
  return sums.to(weight.scalar_type());
}

// Adds in^T grad of each group to `sum`.
void AddWeightGradient(const at::Tensor& sum, const at::Tensor& in, const at::Tensor& grad,
                       const at::Tensor& ends_G, const std::vector<int64_t>& rows_per_group) {
  const at::Tensor product = at::_grouped_mm(in.t(), grad, ends_G);
  for (size_t g = 0; g < rows_per_group.size(); ++g) {
    // Not every kernel writes the product of no rows.
    if (rows_per_group[g] == 0) product.select(0, static_cast<int64_t>(g)).zero_();
  }
  at::Tensor(sum).add_(product);
}

class GroupedGemmFfnFunction : public torch::autograd::Function<GroupedGemmFfnFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& up,
                            const std::optional<at::Tensor>& up_bias, const at::Tensor& down,
                            const std::optional<at::Tensor>& down_bias,
                            const std::vector<int64_t>& rows_per_group, int64_t activation,
                            const InnerDropout& dropout) {
    const at::ScalarType dtype = x.scalar_type();
    const at::Tensor up_cast = up.to(dtype), down_cast = down.to(dtype),
                     ends_G = EndsOf(rows_per_group, x.device());
    const at::Tensor pre = at::_grouped_mm(x, up_cast, ends_G), hidden = at::empty_like(pre);
    AddBias(pre, Cast(up_bias, dtype), ends_G, static_cast<Activation>(activation), hidden);
    const at::Tensor mask =
        DropoutMask({x.size(0), up.size(2)}, dropout.probability, dropout.key, dropout.token_ids_R);
    if (mask.defined()) DropInto(hidden, hidden, mask, dropout.probability);
    const at::Tensor y = at::_grouped_mm(hidden, down_cast, ends_G);
    AddBias(y, Cast(down_bias, dtype), ends_G, static_cast<Activation>(activation), {});
    ctx->save_for_backward({x, up, down, up_cast, down_cast, pre, hidden, mask, ends_G});
    ctx->saved_data["rows_per_group"] = rows_per_group;
    ctx->saved_data["activation"] = activation;
    ctx->saved_data["dropout"] = dropout.probability;
    ctx->saved_data["up_bias"] = up_bias.has_value() && up_bias->requires_grad();
    ctx->saved_data["down_bias"] = down_bias.has_value() && down_bias->requires_grad();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &up = saved[1], &down = saved[2], &up_cast = saved[3],
                     &down_cast = saved[4], &pre = saved[5], &hidden = saved[6], &mask = saved[7],
                     &ends_G = saved[8];
    const std::vector<int64_t> rows_per_group = ctx->saved_data["rows_per_group"].toIntVector();
    const at::Tensor grad = grads[0].contiguous();
    const at::Tensor grad_pre = at::_grouped_mm(grad, down_cast.transpose(1, 2), ends_G);
    if (mask.defined()) {
      DropInto(grad_pre, grad_pre, mask, ctx->saved_data["dropout"].toDouble());
    }
    ActivateBackwardInto(grad_pre, grad_pre, pre,
                         static_cast<Activation>(ctx->saved_data["activation"].toInt()));
    at::Tensor grad_x, grad_up_bias, grad_down_bias;
    if (x.requires_grad()) grad_x = at::_grouped_mm(grad_pre, up_cast.transpose(1, 2), ends_G);
    const WeightGradient grad_up(up), grad_down(down);
    if (grad_up.IsNeeded()) {
      AddWeightGradient(grad_up.sum(), x, grad_pre, ends_G, rows_per_group);
    }
    if (grad_down.IsNeeded()) {
      AddWeightGradient(grad_down.sum(), hidden, grad, ends_G, rows_per_group);
    }
    if (ctx->saved_data["up_bias"].toBool()) grad_up_bias = BiasGradient(grad_pre, ends_G, up);
    if (ctx->saved_data["down_bias"].toBool()) grad_down_bias = BiasGradient(grad, ends_G, down);
    return {grad_x, grad_up.ToReturn(), grad_up_bias, grad_down.ToReturn(), grad_down_bias, {}, {},
            {}};
  }
};

}  // namespace

bool IsGroupedGemmFfn(const at::Tensor& x_RD, const GroupedFfnWeights& weights) {
  const at::Tensor& up = weights.up_GDF;
  return x_RD.is_cuda() && x_RD.scalar_type() == at::kBFloat16 && x_RD.size(0) > 0 &&
         up.dim() == 3 && up.size(0) <= kMostGroups && up.size(1) % kAlignedElements == 0 &&
         up.size(2) % kAlignedElements == 0;
}

at::Tensor GroupedGemmFfn(const at::Tensor& x_RD, const std::vector<int64_t>& rows_per_group,
                          const GroupedFfnWeights& weights, Activation activation,
                          const InnerDropout& dropout) {
  TORCH_CHECK(x_RD.size(0) <= std::numeric_limits<int32_t>::max(), "GroupedFfn: ", x_RD.size(0),
              " rows, expected fewer than 2^31");
  return GroupedGemmFfnFunction::apply(
      x_RD.contiguous(), weights.up_GDF, OptionalTensor(weights.up_GF), weights.down_GFD,
      OptionalTensor(weights.down_GD), rows_per_group, static_cast<int64_t>(activation), dropout);
}

}  // namespace hypermoe
