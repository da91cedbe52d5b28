// What the forms of attention share: everything after the scores.
//
// Legend: B rows, H heads, S query positions, L key positions, C head width.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/keyed_random.h"

namespace hypermoe {

// Dropout of attention probabilities. probability 0: none, and the rest is not looked at.
struct AttentionDropout {
  double probability = 0;
  RandomKey key;
  at::Tensor row_ids_B;  // int64: global rows, see KeyedDropout
};

// bool [S,L]: the keys that come after each query, if the queries are the last S of L positions.
at::Tensor FutureKeys(int64_t queries, int64_t keys, at::Device device);

// dropout(softmax(scores_BHSL)) v_BHLC: [B,H,S,C], the probabilities written out in at least
// float32, as in LibTorch's fused kernels, then rounded to v's dtype. B may be 0. Differentiable in
// both.
at::Tensor AttentionOfScores(const at::Tensor& scores_BHSL, const at::Tensor& v_BHLC,
                             const AttentionDropout& dropout);

}  // namespace hypermoe
