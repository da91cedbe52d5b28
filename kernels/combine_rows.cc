#include "kernels/combine_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "kernels/combine_rows_arguments.h"
#include "kernels/element_type_of.h"
#include "kernels/optional_tensor.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of contiguous tensors; position and base may be undefined.
CombineRowsArguments ArgumentsOf(const at::Tensor& rows, const at::Tensor& gate,
                                 const at::Tensor& position, const at::Tensor& base,
                                 int64_t order) {
  return {ElementTypeOf(rows.scalar_type(), "CombineRows"),
          rows.const_data_ptr(),
          gate.const_data_ptr(),
          position.defined() ? position.const_data_ptr<int64_t>() : nullptr,
          base.defined() ? base.const_data_ptr() : nullptr,
          static_cast<BaseOrder>(order) == BaseOrder::kRows,
          gate.size(0),
          gate.size(1),
          rows.size(1)};
}

class CombineRowsFunction : public torch::autograd::Function<CombineRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, const at::Tensor& gate,
                            const std::optional<at::Tensor>& position,
                            const std::optional<at::Tensor>& base, int64_t order) {
    const at::Tensor position_or_none = position.value_or(at::Tensor());
    const at::Tensor y =
        at::empty({gate.size(0), rows.size(1)}, rows.options().requires_grad(false));
    (rows.is_cuda() ? cuda::CombineRows : cpu::CombineRows)(
        ArgumentsOf(rows, gate, position_or_none, base.value_or(at::Tensor()), order),
        y.mutable_data_ptr());
    ctx->save_for_backward({rows, gate, position_or_none});
    ctx->saved_data["has_base"] = base.has_value();
    ctx->saved_data["order"] = order;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &rows = saved[0], &gate = saved[1], &position = saved[2];
    const int64_t order = ctx->saved_data["order"].toInt();
    const at::Tensor grad = grads[0].contiguous(), grad_rows = at::empty_like(rows),
                     grad_gate = at::empty_like(gate);
    at::Tensor grad_base, moved_base;
    if (ctx->saved_data["has_base"].toBool()) {
      const bool moves = static_cast<BaseOrder>(order) == BaseOrder::kRows && position.defined();
      grad_base = moves ? at::empty_like(grad) : grad;
      if (moves) moved_base = grad_base;
    }
    (rows.is_cuda() ? cuda::CombineRowsBackward : cpu::CombineRowsBackward)(
        ArgumentsOf(rows, gate, position, {}, order),
        {grad.const_data_ptr(), grad_rows.mutable_data_ptr(), grad_gate.mutable_data_ptr(),
         moved_base.defined() ? moved_base.mutable_data_ptr() : nullptr});
    return {grad_rows, grad_gate, {}, grad_base, {}};
  }
};

}  // namespace

at::Tensor CombineRows(const at::Tensor& rows_CD, const at::Tensor& gate_TK,
                       const at::Tensor& position_C, const at::Tensor& base_TD, BaseOrder order) {
  const at::ScalarType dtype = rows_CD.scalar_type();
  ElementTypeOf(dtype, "CombineRows");
  TORCH_CHECK(rows_CD.dim() == 2 && gate_TK.dim() == 2 && gate_TK.numel() == rows_CD.size(0),
              "CombineRows: gates of shape ", gate_TK.sizes(), " do not fit rows of shape ",
              rows_CD.sizes());
  TORCH_CHECK(gate_TK.scalar_type() == (dtype == at::kDouble ? at::kDouble : at::kFloat),
              "CombineRows: gates of ", gate_TK.scalar_type(), " for rows of ", dtype);
  TORCH_CHECK(!position_C.defined() ||
                  (position_C.scalar_type() == at::kLong && position_C.numel() == rows_CD.size(0)),
              "CombineRows: positions of shape ", position_C.sizes(), " for rows of shape ",
              rows_CD.sizes(), ", expected int64, one for each");
  TORCH_CHECK(!base_TD.defined() ||
                  (base_TD.scalar_type() == dtype && base_TD.dim() == 2 &&
                   base_TD.size(0) == gate_TK.size(0) && base_TD.size(1) == rows_CD.size(1)),
              "CombineRows: a base of shape ", base_TD.sizes(), " for ", gate_TK.size(0),
              " tokens of width ", rows_CD.size(1), ", in ", dtype);
  TORCH_CHECK(order == BaseOrder::kTokens || gate_TK.size(1) == 1,
              "CombineRows: a base in the rows' order needs one choice a token, not ",
              gate_TK.size(1));
  const auto contiguous = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.contiguous() : tensor;
  };
  return CombineRowsFunction::apply(
      rows_CD.contiguous(), gate_TK.contiguous(), OptionalTensor(contiguous(position_C)),
      OptionalTensor(contiguous(base_TD)), static_cast<int64_t>(order));
}

}  // namespace hypermoe
