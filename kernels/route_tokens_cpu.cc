#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/route_tokens_arguments.h"

namespace hypermoe {
namespace {

constexpr int64_t kGrainElements = 1 << 12;
// Strands that are reduced beside each other, in registers.
constexpr int kLanes = 8;

// Calls body(t) for every token.
template <typename Body>
void ForEachToken(const RouteTokensSizes& sizes, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kGrainElements / sizes.experts);
  at::parallel_for(0, sizes.tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(t);
  });
}

// combine(..., value(i)) of all i < count, from `start`; always in the same order.
template <typename Element, typename Value, typename Combine>
[[gnu::always_inline]] inline Element Reduce(int64_t count, Element start, const Value& value,
                                             const Combine& combine) {
  Element strands[kLanes];
  std::fill_n(strands, kLanes, start);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      strands[lane] = combine(strands[lane], value(i + lane));
    }
  }
  for (int lane = 0; i < count; ++i, ++lane) strands[lane] = combine(strands[lane], value(i));
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) {
      strands[lane] = combine(strands[lane], strands[lane + half]);
    }
  }
  return strands[0];
}

template <typename Element, typename Value>
[[gnu::always_inline]] inline Element Sum(int64_t count, const Value& value) {
  return Reduce<Element>(count, 0, value, [](Element a, Element b) { return a + b; });
}

// exp(x) for x <= 0 in operations that the compiler makes vectors of; to 2 units in the last place,
// and 0 where the result would be less than the least normal number. With x = n ln 2 + r, n whole
// and |r| <= ln(2) / 2, it is 2^n times a polynomial in r, whose first missing term is below a
// tenth of a unit.
[[gnu::always_inline]] inline float Exp(float x) {
  constexpr float kLeast = -87.33F, kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;  // products with n are exact
  constexpr float kRound = 12582912;  // 1.5 * 2^23: a number added to it is rounded to a whole one
  const float shifted = x * kLog2E + kRound, n = shifted - kRound;
  const float r = x - n * kLn2High - n * kLn2Low;
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 1.0F / 2;
  sum = sum * r + 1;
  sum = sum * r + 1;
  // n as the exponent of a number.
  const uint32_t exponent =
      (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound) + 127) << 23;
  return x < kLeast ? 0 : sum * std::bit_cast<float>(exponent);
}
[[gnu::always_inline]] inline double Exp(double x) { return std::exp(x); }

// Probabilities of one token; returns the logarithm of the sum.
template <typename Element>
[[gnu::always_inline]] inline Element Softmax(const Element* __restrict logits, int64_t experts,
                                              Element* __restrict probs) {
  // Without NaN, which the sum then has.
  const Element top = Reduce(
      experts, -std::numeric_limits<Element>::infinity(), [&](int64_t n) { return logits[n]; },
      [](Element a, Element b) { return b > a ? b : a; });
  for (int64_t n = 0; n < experts; ++n) probs[n] = Exp(logits[n] - top);
  const auto sum = Sum<Element>(experts, [&](int64_t n) { return probs[n]; });
  for (int64_t n = 0; n < experts; ++n) probs[n] /= sum;
  return top + std::log(sum);
}

// From grad = a, see Backward.
template <typename Element>
[[gnu::always_inline]] inline void GradientOfSoftmax(const Element* __restrict probs,
                                                     int64_t experts, Element grad_log_sum,
                                                     Element* __restrict grad) {
  const Element shift =
      grad_log_sum - Sum<Element>(experts, [&](int64_t n) { return probs[n] * grad[n]; });
  for (int64_t n = 0; n < experts; ++n) grad[n] = probs[n] * (grad[n] + shift);
}

// Compiled for several instruction sets, of which one is chosen when the program starts. GCC 12
// does not clone templates.
#define HYPERMOE_KERNELS(Element)                                                   \
  [[gnu::target_clones("avx512f", "avx2", "default")]] Element SoftmaxOf(           \
      const Element* logits, int64_t experts, Element* probs) {                     \
    return Softmax(logits, experts, probs);                                         \
  }                                                                                 \
  [[gnu::target_clones("avx512f", "avx2", "default")]] void GradientOf(             \
      const Element* probs, int64_t experts, Element grad_log_sum, Element* grad) { \
    GradientOfSoftmax(probs, experts, grad_log_sum, grad);                          \
  }
HYPERMOE_KERNELS(float)
HYPERMOE_KERNELS(double)
#undef HYPERMOE_KERNELS

// The likeliest first, the lower id where they are equal.
template <typename Element>
void ChooseLikeliest(const Element* probs, int64_t experts, int64_t choices, int64_t* ids) {
  int64_t chosen = 0;
  for (int64_t n = 0; n < experts; ++n) {
    if (chosen == choices && !(probs[n] > probs[ids[chosen - 1]])) continue;
    // Behind all that are not less likely; the last makes room.
    int64_t k = chosen < choices ? chosen++ : choices - 1;
    for (; k > 0 && probs[n] > probs[ids[k - 1]]; --k) ids[k] = ids[k - 1];
    ids[k] = n;
  }
}

template <typename Element>
void Forward(const RouteTokensSizes& sizes, const RouteTokensArguments& in) {
  ForEachToken(sizes, [&](int64_t t) {
    auto* probs = static_cast<Element*>(in.probs) + t * sizes.experts;
    static_cast<Element*>(in.log_sum)[t] =
        SoftmaxOf(static_cast<const Element*>(in.logits) + t * sizes.experts, sizes.experts, probs);
    if (in.chosen == nullptr) {
      ChooseLikeliest(probs, sizes.experts, sizes.choices, in.ids + t * sizes.choices);
    }
    const int64_t* ids = (in.chosen != nullptr ? in.chosen : in.ids) + t * sizes.choices;
    auto* gate = static_cast<Element*>(in.gate) + t * sizes.choices;
    Element sum = 0;
    for (int64_t k = 0; k < sizes.choices; ++k) {
      TORCH_CHECK(ids[k] >= 0 && ids[k] < sizes.experts, "RouteTokens: the chosen expert ", ids[k],
                  " is outside [0, ", sizes.experts, ")");
      gate[k] = probs[ids[k]];
      sum += gate[k];
    }
    if (!sizes.renormalize) return;
    for (int64_t k = 0; k < sizes.choices; ++k) gate[k] /= sum;
  });
}

// With dP, dG and dL the gradients of probabilities p, gates g and the logarithm of the sum, and q
// the probabilities of the choices:
//   dq[k]     = dG[k], or (dG[k] - sum over j of dG[j] g[j]) / sum over j of q[j]
//   a[n]      = dP[n] + sum over k with id[k] = n of dq[k]
//   dlogit[n] = p[n] (a[n] - sum over m of p[m] a[m] + dL)
template <typename Element>
void Backward(const RouteTokensSizes& sizes, const RouteTokensGradients& in) {
  const auto* all_probs = static_cast<const Element*>(in.probs);
  const auto* grad_probs = static_cast<const Element*>(in.grad_probs);
  const auto* grad_gate = static_cast<const Element*>(in.grad_gate);
  const auto* grad_log_sum = static_cast<const Element*>(in.grad_log_sum);
  ForEachToken(sizes, [&](int64_t t) {
    const int64_t row = t * sizes.experts;
    const Element* probs = all_probs + row;
    Element* grad = static_cast<Element*>(in.grad_logits) + row;  // a until the end
    for (int64_t n = 0; n < sizes.experts; ++n) {
      grad[n] = grad_probs != nullptr ? grad_probs[row + n] : Element{0};
    }
    if (grad_gate != nullptr) {
      const Element* of_gate = grad_gate + t * sizes.choices;
      const int64_t* ids = in.ids + t * sizes.choices;
      Element chosen = 1, mean = 0;
      if (sizes.renormalize) {
        chosen = 0;
        for (int64_t k = 0; k < sizes.choices; ++k) {
          chosen += probs[ids[k]];
          mean += of_gate[k] * probs[ids[k]];
        }
        mean /= chosen;
      }
      for (int64_t k = 0; k < sizes.choices; ++k) {
        grad[ids[k]] += (of_gate[k] - mean) / chosen;
      }
    }
    GradientOf(probs, sizes.experts, grad_log_sum != nullptr ? grad_log_sum[t] : Element{0}, grad);
  });
}

}  // namespace

namespace cpu {

void RouteTokens(const RouteTokensSizes& sizes, const RouteTokensArguments& in) {
  (sizes.element == ElementType::kFloat64 ? Forward<double> : Forward<float>)(sizes, in);
}

void RouteTokensBackward(const RouteTokensSizes& sizes, const RouteTokensGradients& in) {
  (sizes.element == ElementType::kFloat64 ? Backward<double> : Backward<float>)(sizes, in);
}

}  // namespace cpu
}  // namespace hypermoe
