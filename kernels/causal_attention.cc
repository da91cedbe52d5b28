#include "kernels/causal_attention.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>
#include <limits>

namespace hypermoe {
namespace {

// The same with the probabilities written out, where dropout must act on them.
at::Tensor AttentionWithDropout(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                                const at::Tensor& v_BHLC, const AttentionDropout& dropout) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q_BHSC.size(3)));
  const at::Tensor scores_BHSL =
      at::matmul(q_BHSC.mul(scale), k_BHLC.transpose(2, 3))
          .masked_fill(FutureKeys(q_BHSC.size(2), k_BHLC.size(2), q_BHSC.device()),
                       -std::numeric_limits<double>::infinity());
  return AttentionOfScores(scores_BHSL, v_BHLC, dropout);
}

}  // namespace

at::Tensor CausalAttention(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                           const at::Tensor& v_BHLC, const AttentionDropout& dropout) {
  const int64_t queries = q_BHSC.size(2), keys = k_BHLC.size(2);
  TORCH_CHECK(queries == keys || queries == 1, "CausalAttention: ", queries, " queries and ", keys,
              " keys; expected as many, or one query");
  // The fused kernel does not take a batch of 0 rows; without rows the written-out form costs
  // nothing.
  if (dropout.probability > 0 || q_BHSC.size(0) == 0)
    return AttentionWithDropout(q_BHSC, k_BHLC, v_BHLC, dropout);
  return at::scaled_dot_product_attention(q_BHSC, k_BHLC, v_BHLC, {}, 0.0,
                                          /*is_causal=*/queries == keys);
}

}  // namespace hypermoe
