#include "model/gated_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/custom_function.h>

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor Attach(const at::Tensor& rows_TD, const at::Tensor& gates_TG) {
  return at::cat({rows_TD, gates_TG.contiguous().view(rows_TD.scalar_type())}, 1);
}

variable_list Detach(const at::Tensor& attached, int64_t width, at::ScalarType gate_dtype) {
  // Copies, for a part of one row counts as contiguous where it stands, unaligned for its gates.
  const auto copy = [](const at::Tensor& part) { return part.clone(at::MemoryFormat::Contiguous); };
  return {copy(attached.narrow(1, 0, width)),
          copy(attached.narrow(1, width, attached.size(1) - width)).view(gate_dtype)};
}

class AttachFunction : public torch::autograd::Function<AttachFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows_TD,
                            const at::Tensor& gates_TG) {
    ctx->saved_data["width"] = rows_TD.size(1);
    ctx->saved_data["gate_dtype"] = static_cast<int64_t>(gates_TG.scalar_type());
    return Attach(rows_TD, gates_TG);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return Detach(grads[0], ctx->saved_data["width"].toInt(),
                  static_cast<at::ScalarType>(ctx->saved_data["gate_dtype"].toInt()));
  }
};

class DetachFunction : public torch::autograd::Function<DetachFunction> {
 public:
  static variable_list forward(AutogradContext* /*ctx*/, const at::Tensor& attached, int64_t width,
                               int64_t gate_dtype) {
    return Detach(attached, width, static_cast<at::ScalarType>(gate_dtype));
  }
  // Both gradients in one piece: summed up by autograd from two padded ones, bits would be numbers.
  static variable_list backward(AutogradContext* /*ctx*/, variable_list grads) {
    return {Attach(grads[0], grads[1]), {}, {}};
  }
};

}  // namespace

at::Tensor AttachGates(const at::Tensor& rows_TD, const at::Tensor& gates_TG) {
  return AttachFunction::apply(rows_TD, gates_TG);
}

GatedRows DetachGates(const at::Tensor& attached, int64_t width, at::ScalarType gate_dtype) {
  const variable_list parts =
      DetachFunction::apply(attached, width, static_cast<int64_t>(gate_dtype));
  return {parts[0], parts[1]};
}

at::Tensor NumberColumns(const at::Tensor& numbers_T, at::ScalarType dtype) {
  return numbers_T.contiguous().view({-1, 1}).view(dtype);
}

at::Tensor NumbersOf(const at::Tensor& columns_TC) {
  return columns_TC.detach().clone(at::MemoryFormat::Contiguous).view(at::kLong).squeeze(1);
}

at::Tensor ScaleRows(const at::Tensor& rows_TD, const at::Tensor& factor) {
  return factor.defined() ? (rows_TD * factor).to(rows_TD.scalar_type()) : rows_TD;
}

}  // namespace hypermoe
