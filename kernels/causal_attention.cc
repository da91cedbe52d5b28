#include "kernels/causal_attention.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#include "kernels/keyed_dropout.h"

namespace hypermoe {
namespace {

// The same with the probabilities written out, where dropout must act on them.
at::Tensor AttentionWithDropout(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                                const at::Tensor& v_BHLC, const AttentionDropout& dropout) {
  const int64_t queries = q_BHSC.size(2), keys = k_BHLC.size(2);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q_BHSC.size(3)));
  const at::Tensor future_SL =
      at::ones({queries, keys}, q_BHSC.options().dtype(at::kBool)).triu(keys - queries + 1);
  const at::Tensor scores_BHSL =
      at::matmul(q_BHSC.mul(scale), k_BHLC.transpose(2, 3))
          .masked_fill(future_SL, -std::numeric_limits<double>::infinity());
  // At least float32, as in the fused kernel.
  const at::ScalarType precise = v_BHLC.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor probs_BHSL = KeyedDropout(at::softmax(scores_BHSL, -1, precise),
                                             dropout.probability, dropout.key, dropout.row_ids_B);
  return at::matmul(probs_BHSL.to(v_BHLC.scalar_type()), v_BHLC);
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
