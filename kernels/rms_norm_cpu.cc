#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "kernels/element_type_of.h"
#include "kernels/rms_norm_arguments.h"

namespace hypermoe {
namespace {

// Independent sums: one alone would wait for its own last addition each time.
constexpr int kLanes = 32;

// The sum over i below `width` of term(i).
template <typename Precise, typename Term>
[[gnu::always_inline]] inline Precise SumOver(int64_t width, const Term& term) {
  Precise sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += term(i + lane);
  }
  for (int lane = 0; i < width; ++i, ++lane) sums[lane] += term(i);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// Returns 1 / sqrt(mean(x^2) + epsilon).
template <typename Element, typename Precise>
[[gnu::always_inline]] inline Precise NormaliseRow(Element* __restrict y,
                                                   const Element* __restrict x,
                                                   const Precise* __restrict weight, int64_t width,
                                                   double epsilon) {
  const Precise squares = SumOver<Precise>(
      width, [x](int64_t i) { return static_cast<Precise>(x[i]) * static_cast<Precise>(x[i]); });
  const Precise inverse =
      1 / std::sqrt(squares / static_cast<Precise>(width) + static_cast<Precise>(epsilon));
  for (int64_t i = 0; i < width; ++i) {
    y[i] = static_cast<Element>(static_cast<Precise>(x[i]) * inverse * weight[i]);
  }
  return inverse;
}

// Of a row's gradient that of the normalised row g = grad * weight, less its part along the row,
// which the normalisation takes no notice of.
template <typename Element, typename Precise>
[[gnu::always_inline]] inline void GradientOfRow(Element* __restrict grad_x,
                                                 const Element* __restrict grad,
                                                 const Element* __restrict x,
                                                 const Precise* __restrict weight, Precise inverse,
                                                 int64_t width) {
  const Precise along = SumOver<Precise>(width, [=](int64_t i) {
    return static_cast<Precise>(grad[i]) * weight[i] * static_cast<Precise>(x[i]);
  });
  const Precise factor = along * inverse * inverse / static_cast<Precise>(width);
  for (int64_t i = 0; i < width; ++i) {
    grad_x[i] = static_cast<Element>(
        (static_cast<Precise>(grad[i]) * weight[i] - static_cast<Precise>(x[i]) * factor) *
        inverse);
  }
}

template <typename Element, typename Precise>
[[gnu::always_inline]] inline void AddGradientOfWeight(Precise* __restrict sum,
                                                       const Element* __restrict grad,
                                                       const Element* __restrict x, Precise inverse,
                                                       int64_t width) {
  for (int64_t i = 0; i < width; ++i) {
    sum[i] += static_cast<Precise>(grad[i]) * (static_cast<Precise>(x[i]) * inverse);
  }
}

// Compiled for several instruction sets, of which one is chosen when the program starts. GCC 12
// does not clone templates.
#define HYPERMOE_KERNELS(Element, Precise)                                                   \
  [[gnu::target_clones("avx512f", "avx2", "default")]] Precise Normalise(                    \
      Element* y, const Element* x, const Precise* weight, int64_t width, double epsilon) {  \
    return NormaliseRow(y, x, weight, width, epsilon);                                       \
  }                                                                                          \
  [[gnu::target_clones("avx512f", "avx2", "default")]] void GradientOf(                      \
      Element* grad_x, const Element* grad, const Element* x, const Precise* weight,         \
      Precise inverse, int64_t width) {                                                      \
    GradientOfRow(grad_x, grad, x, weight, inverse, width);                                  \
  }                                                                                          \
  [[gnu::target_clones("avx512f", "avx2", "default")]] void AddToWeight(                     \
      Precise* sum, const Element* grad, const Element* x, Precise inverse, int64_t width) { \
    AddGradientOfWeight(sum, grad, x, inverse, width);                                       \
  }
HYPERMOE_KERNELS(float, float)
HYPERMOE_KERNELS(double, double)
HYPERMOE_KERNELS(c10::BFloat16, float)
#undef HYPERMOE_KERNELS

// Calls body(block, row) for every row, those of a block in order by one thread.
template <typename Body>
void ForEachRow(int64_t rows, const Body& body) {
  const int64_t blocks = (rows + kRmsNormBlock - 1) / kRmsNormBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t last = std::min(rows, (block + 1) * kRmsNormBlock);
      for (int64_t row = block * kRmsNormBlock; row < last; ++row) body(block, row);
    }
  });
}

template <typename Element, typename Precise>
void Forward(const RmsNormArguments& in, Precise* inverse, Element* y) {
  const auto* x = static_cast<const Element*>(in.x);
  const auto* weight = static_cast<const Precise*>(in.weight);
  ForEachRow(in.rows, [&](int64_t, int64_t row) {
    const int64_t first = row * in.width;
    inverse[row] = Normalise(y + first, x + first, weight, in.width, in.epsilon);
  });
}

template <typename Element, typename Precise>
void Backward(const RmsNormArguments& in, const Precise* inverse, const RmsNormGradients& grad) {
  const auto* x = static_cast<const Element*>(in.x);
  const auto* grad_y = static_cast<const Element*>(grad.y);
  const auto* weight = static_cast<const Precise*>(in.weight);
  ForEachRow(in.rows, [&](int64_t block, int64_t row) {
    const int64_t first = row * in.width;
    if (grad.weight != nullptr) {
      Precise* sum = static_cast<Precise*>(grad.weight) + block * in.width;
      if (row == block * kRmsNormBlock) std::fill_n(sum, in.width, Precise{0});
      AddToWeight(sum, grad_y + first, x + first, inverse[row], in.width);
    }
    if (grad.x != nullptr) {
      GradientOf(static_cast<Element*>(grad.x) + first, grad_y + first, x + first, weight,
                 inverse[row], in.width);
    }
  });
}

}  // namespace

namespace cpu {

void RmsNorm(const RmsNormArguments& in, void* inverse, void* y) {
  WithElementType(in.element, [&](auto element, auto precise) {
    Forward(in, static_cast<decltype(precise)*>(inverse), static_cast<decltype(element)*>(y));
  });
}

void RmsNormBackward(const RmsNormArguments& in, const void* inverse,
                     const RmsNormGradients& grad) {
  WithElementType(in.element, [&](auto element, auto precise) {
    Backward<decltype(element)>(in, static_cast<const decltype(precise)*>(inverse), grad);
  });
}

}  // namespace cpu
}  // namespace hypermoe
