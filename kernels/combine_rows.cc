#include "kernels/combine_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "kernels/optional_tensor.h"

namespace hypermoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kGrainElements = 1 << 14;
// Elements that are summed side by side, in registers.
constexpr int kChunk = 64;

// Where the rows of one token are.
template <typename Element, typename Gate>
struct Operands {
  const Element* rows;
  const Gate* gates;         // of this token: [K]
  const int64_t* positions;  // of this token: [K]; null: from first_position on
  int64_t first_position, choices, width;

  int64_t PositionOf(int64_t k) const {
    return positions != nullptr ? positions[k] : first_position + k;
  }
  const Element* RowOf(int64_t k) const { return rows + PositionOf(k) * width; }
};

// A part of one row of the result: `count` elements from `begin` on.
template <typename Element, typename Gate>
[[gnu::always_inline]] inline void Sum(Element* __restrict y, const Element* __restrict base,
                                       const Operands<Element, Gate>& in, int64_t begin,
                                       int64_t count) {
  Gate sum[kChunk] = {};
  if (base != nullptr) {
    for (int64_t i = 0; i < count; ++i) sum[i] = static_cast<Gate>(base[begin + i]);
  }
  for (int64_t k = 0; k < in.choices; ++k) {
    const Element* row = in.RowOf(k) + begin;
    for (int64_t i = 0; i < count; ++i) sum[i] += in.gates[k] * static_cast<Gate>(row[i]);
  }
  for (int64_t i = 0; i < count; ++i) y[begin + i] = static_cast<Element>(sum[i]);
}

template <typename Element, typename Gate>
[[gnu::always_inline]] inline void SumRow(Element* y, const Element* base,
                                          const Operands<Element, Gate>& in) {
  int64_t begin = 0;
  for (; begin + kChunk <= in.width; begin += kChunk) Sum(y, base, in, begin, kChunk);
  if (begin < in.width) Sum(y, base, in, begin, in.width - begin);
}

// grad_row = gate grad; returns grad . row, summed in kLanes strands.
template <typename Element, typename Gate>
[[gnu::always_inline]] inline Gate GradientOfRow(Element* __restrict grad_row,
                                                 const Element* __restrict grad,
                                                 const Element* __restrict row, Gate gate,
                                                 int64_t width) {
  constexpr int kLanes = 16;
  Gate strands[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const Gate g = static_cast<Gate>(grad[i + lane]);
      grad_row[i + lane] = static_cast<Element>(gate * g);
      strands[lane] += g * static_cast<Gate>(row[i + lane]);
    }
  }
  for (int lane = 0; i < width; ++i, ++lane) {
    const Gate g = static_cast<Gate>(grad[i]);
    grad_row[i] = static_cast<Element>(gate * g);
    strands[lane] += g * static_cast<Gate>(row[i]);
  }
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) strands[lane] += strands[lane + half];
  }
  return strands[0];
}

// Compiled for several instruction sets, of which one is chosen when the program starts. GCC 12
// does not clone templates.
#define HYPERMOE_KERNELS(Element, Gate)                                                       \
  [[gnu::target_clones("avx512f", "avx2", "default")]] void SumRowOf(                         \
      Element* y, const Element* base, const Operands<Element, Gate>& in) {                   \
    SumRow(y, base, in);                                                                      \
  }                                                                                           \
  [[gnu::target_clones("avx512f", "avx2", "default")]] Gate GradientOf(                       \
      Element* grad_row, const Element* grad, const Element* row, Gate gate, int64_t width) { \
    return GradientOfRow(grad_row, grad, row, gate, width);                                   \
  }
HYPERMOE_KERNELS(float, float)
HYPERMOE_KERNELS(double, double)
HYPERMOE_KERNELS(c10::BFloat16, float)
#undef HYPERMOE_KERNELS

// Contiguous tensors; position and base may be undefined.
struct Arguments {
  at::Tensor rows, gate, position, base;
  BaseOrder order;

  int64_t tokens() const { return gate.size(0); }
  int64_t width() const { return rows.size(1); }

  template <typename Element, typename Gate>
  Operands<Element, Gate> OfToken(int64_t t) const {
    const int64_t choices = gate.size(1);
    return {rows.const_data_ptr<Element>(),
            gate.const_data_ptr<Gate>() + t * choices,
            position.defined() ? position.const_data_ptr<int64_t>() + t * choices : nullptr,
            t * choices,
            choices,
            width()};
  }
};

// Calls body(t) for every token.
template <typename Body>
void ForEachToken(const Arguments& in, const Body& body) {
  const int64_t grain =
      std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, in.rows.size(1)));
  at::parallel_for(0, in.tokens(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(t);
  });
}

template <typename Element, typename Gate>
void Forward(const Arguments& in, const at::Tensor& y) {
  ForEachToken(in, [&](int64_t t) {
    const Operands<Element, Gate> token = in.OfToken<Element, Gate>(t);
    const Element* base = nullptr;
    if (in.base.defined()) {
      const int64_t row = in.order == BaseOrder::kRows ? token.PositionOf(0) : t;
      base = in.base.const_data_ptr<Element>() + row * in.width();
    }
    SumRowOf(y.mutable_data_ptr<Element>() + t * in.width(), base, token);
  });
}

// grad_base is defined if the base moves with the rows.
template <typename Element, typename Gate>
void Backward(const Arguments& in, const at::Tensor& grad, const at::Tensor& grad_rows,
              const at::Tensor& grad_gate, const at::Tensor& grad_base) {
  const int64_t width = in.width();
  ForEachToken(in, [&](int64_t t) {
    const Operands<Element, Gate> token = in.OfToken<Element, Gate>(t);
    const Element* from = grad.const_data_ptr<Element>() + t * width;
    for (int64_t k = 0; k < token.choices; ++k) {
      grad_gate.mutable_data_ptr<Gate>()[t * token.choices + k] =
          GradientOf(grad_rows.mutable_data_ptr<Element>() + token.PositionOf(k) * width, from,
                     token.RowOf(k), token.gates[k], width);
    }
    if (grad_base.defined()) {
      std::copy_n(from, width, grad_base.mutable_data_ptr<Element>() + token.PositionOf(0) * width);
    }
  });
}

// Calls `body` with values of the types of an element and of a gate.
template <typename Body>
void WithTypes(const Arguments& in, const Body& body) {
  switch (in.rows.scalar_type()) {
    case at::kDouble:
      return body(double{}, double{});
    case at::kBFloat16:
      return body(c10::BFloat16{}, float{});
    default:
      return body(float{}, float{});
  }
}

class CombineRowsFunction : public torch::autograd::Function<CombineRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, const at::Tensor& gate,
                            const std::optional<at::Tensor>& position,
                            const std::optional<at::Tensor>& base, int64_t order) {
    const Arguments in = {rows, gate, position.value_or(at::Tensor()), base.value_or(at::Tensor()),
                          static_cast<BaseOrder>(order)};
    const at::Tensor y = at::empty({in.tokens(), in.width()}, rows.options().requires_grad(false));
    WithTypes(in, [&](auto element, auto gate_value) {
      Forward<decltype(element), decltype(gate_value)>(in, y);
    });
    ctx->save_for_backward({rows, gate, in.position});
    ctx->saved_data["has_base"] = in.base.defined();
    ctx->saved_data["order"] = order;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Arguments in = {
        saved[0], saved[1], saved[2], {}, static_cast<BaseOrder>(ctx->saved_data["order"].toInt())};
    const at::Tensor grad = grads[0].contiguous(), grad_rows = at::empty_like(in.rows),
                     grad_gate = at::empty_like(in.gate);
    at::Tensor grad_base;
    const bool base_moves = in.order == BaseOrder::kRows && in.position.defined();
    if (ctx->saved_data["has_base"].toBool()) grad_base = base_moves ? at::empty_like(grad) : grad;
    WithTypes(in, [&](auto element, auto gate_value) {
      Backward<decltype(element), decltype(gate_value)>(in, grad, grad_rows, grad_gate,
                                                        base_moves ? grad_base : at::Tensor());
    });
    return {grad_rows, grad_gate, {}, grad_base, {}};
  }
};

}  // namespace

at::Tensor CombineRows(const at::Tensor& rows_CD, const at::Tensor& gate_TK,
                       const at::Tensor& position_C, const at::Tensor& base_TD, BaseOrder order) {
  const at::ScalarType dtype = rows_CD.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16,
              "CombineRows: rows of ", dtype, ", expected float32, float64 or bfloat16");
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
