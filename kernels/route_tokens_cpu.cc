#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

#include "kernels/route_tokens_arguments.h"

namespace hypermoe {
namespace {

constexpr int64_t kGrainElements = 1 << 12;

// Calls body(t) for every token.
template <typename Body>
void ForEachToken(const RouteTokensSizes& sizes, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kGrainElements / sizes.experts);
  at::parallel_for(0, sizes.tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(t);
  });
}

// Probabilities of one token; returns the logarithm of the sum. Sums are made in float64, for they
// are as long as there are experts.
template <typename Element>
Element Softmax(const Element* logits, int64_t experts, Element* probs) {
  const Element top = *std::max_element(logits, logits + experts);
  double sum = 0;
  for (int64_t n = 0; n < experts; ++n) {
    probs[n] = std::exp(logits[n] - top);
    sum += probs[n];
  }
  const auto divisor = static_cast<Element>(sum);
  for (int64_t n = 0; n < experts; ++n) probs[n] /= divisor;
  return top + static_cast<Element>(std::log(sum));
}

// The likeliest first. Each comes behind the one before it: less likely, or equally and of a higher
// id.
template <typename Element>
void ChooseLikeliest(const Element* probs, int64_t experts, int64_t choices, int64_t* ids) {
  // All or none are NaN.
  const bool ordered = !std::isnan(probs[0]);
  for (int64_t k = 0; k < choices; ++k) {
    ids[k] = k;
    if (!ordered) continue;
    Element best = -1;
    for (int64_t n = 0; n < experts; ++n) {
      const bool behind = k == 0 || probs[n] < probs[ids[k - 1]] ||
                          (probs[n] == probs[ids[k - 1]] && n > ids[k - 1]);
      if (behind && probs[n] > best) {
        best = probs[n];
        ids[k] = n;
      }
    }
  }
}

template <typename Element>
void Forward(const RouteTokensSizes& sizes, const RouteTokensArguments& in) {
  ForEachToken(sizes, [&](int64_t t) {
    auto* probs = static_cast<Element*>(in.probs) + t * sizes.experts;
    static_cast<Element*>(in.log_sum)[t] =
        Softmax(static_cast<const Element*>(in.logits) + t * sizes.experts, sizes.experts, probs);
    if (in.chosen == nullptr) {
      ChooseLikeliest(probs, sizes.experts, sizes.choices, in.ids + t * sizes.choices);
    }
    const int64_t* ids = (in.chosen != nullptr ? in.chosen : in.ids) + t * sizes.choices;
    auto* gate = static_cast<Element*>(in.gate) + t * sizes.choices;
    double sum = 0;
    for (int64_t k = 0; k < sizes.choices; ++k) {
      TORCH_CHECK(ids[k] >= 0 && ids[k] < sizes.experts, "RouteTokens: the chosen expert ", ids[k],
                  " is outside [0, ", sizes.experts, ")");
      gate[k] = probs[ids[k]];
      sum += gate[k];
    }
    if (!sizes.renormalize) return;
    for (int64_t k = 0; k < sizes.choices; ++k) gate[k] /= static_cast<Element>(sum);
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
      double chosen = 1, dot = 0;
      if (sizes.renormalize) {
        chosen = 0;
        for (int64_t k = 0; k < sizes.choices; ++k) {
          chosen += probs[ids[k]];
          dot += static_cast<double>(of_gate[k]) * probs[ids[k]];
        }
        dot /= chosen;
      }
      for (int64_t k = 0; k < sizes.choices; ++k) {
        grad[ids[k]] += static_cast<Element>((of_gate[k] - dot) / chosen);
      }
    }
    double mean = 0;
    for (int64_t n = 0; n < sizes.experts; ++n) mean += static_cast<double>(probs[n]) * grad[n];
    const double shift = (grad_log_sum != nullptr ? grad_log_sum[t] : 0) - mean;
    for (int64_t n = 0; n < sizes.experts; ++n) {
      grad[n] = probs[n] * static_cast<Element>(grad[n] + shift);
    }
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
