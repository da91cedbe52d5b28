#include <ATen/Parallel.h>

#include <algorithm>

#include "kernels/combine_rows_arguments.h"
#include "kernels/element_type_of.h"

namespace hypermoe {
namespace {

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

template <typename Element, typename Gate>
Operands<Element, Gate> OfToken(const CombineRowsArguments& in, int64_t t) {
  return {static_cast<const Element*>(in.rows),
          static_cast<const Gate*>(in.gate) + t * in.choices,
          in.position == nullptr ? nullptr : in.position + t * in.choices,
          t * in.choices,
          in.choices,
          in.width};
}

// Calls body(t) for every token.
template <typename Body>
void ForEachToken(const CombineRowsArguments& in, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, in.width));
  at::parallel_for(0, in.tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(t);
  });
}

template <typename Element, typename Gate>
void Forward(const CombineRowsArguments& in, Element* y) {
  ForEachToken(in, [&](int64_t t) {
    const auto token = OfToken<Element, Gate>(in, t);
    const auto* base = static_cast<const Element*>(in.base);
    if (base != nullptr) base += (in.base_in_row_order ? token.PositionOf(0) : t) * in.width;
    SumRowOf(y + t * in.width, base, token);
  });
}

template <typename Element, typename Gate>
void Backward(const CombineRowsArguments& in, const CombineRowsGradients& grad) {
  ForEachToken(in, [&](int64_t t) {
    const auto token = OfToken<Element, Gate>(in, t);
    const Element* from = static_cast<const Element*>(grad.y) + t * in.width;
    for (int64_t k = 0; k < in.choices; ++k) {
      static_cast<Gate*>(grad.gate)[t * in.choices + k] =
          GradientOf(static_cast<Element*>(grad.rows) + token.PositionOf(k) * in.width, from,
                     token.RowOf(k), token.gates[k], in.width);
    }
    if (grad.base != nullptr) {
      const int64_t row = in.base_in_row_order ? token.PositionOf(0) : t;
      std::copy_n(from, in.width, static_cast<Element*>(grad.base) + row * in.width);
    }
  });
}

}  // namespace

namespace cpu {

void CombineRows(const CombineRowsArguments& in, void* y) {
  WithElementType(in.element, [&](auto element, auto gate) {
    Forward<decltype(element), decltype(gate)>(in, static_cast<decltype(element)*>(y));
  });
}

void CombineRowsBackward(const CombineRowsArguments& in, const CombineRowsGradients& grad) {
  WithElementType(in.element, [&](auto element, auto gate) {
    Backward<decltype(element), decltype(gate)>(in, grad);
  });
}

}  // namespace cpu
}  // namespace hypermoe
