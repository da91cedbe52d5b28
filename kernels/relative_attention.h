// Multi-head attention as T5 has it (Raffel et al. 2020, arXiv:1910.10683): scores are not scaled,
// positions enter as a bias of the scores by the distance between query and key.
//
// Legend: B rows, H heads, S query positions, L key positions, C head width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/attention.h"

namespace hypermoe {

// int64 [S,L] on the CPU: the bucket of the distance r = l - s, of query s (the first is at
// position first_query) and key l (the first is at 0). Half of the buckets are one distance each,
// the other half grow logarithmically up to max_distance, the last also has all beyond. If
// bidirectional, the upper half of all buckets are those of r > 0; otherwise r > 0 are in bucket
// 0. Always computed by the CPU, in float32 as T5 does: at the edges of buckets another rounding is
// another bucket.
at::Tensor RelativePositionBuckets(int64_t queries, int64_t keys, int64_t first_query,
                                   bool bidirectional, int64_t buckets, int64_t max_distance);

// What is added to scores.
struct AttentionBias {
  at::Tensor bias_HSL;    // differentiable; undefined: none
  at::Tensor allowed_BL;  // bool: the keys of each row to be seen; undefined: all
  bool causal = false;    // query s of the last S of L positions sees keys 0 .. L - S + s
  // The form that gradients need, also where none is asked for: the same bits in a pass without
  // them and when it is done again with them (recomputation).
  bool for_gradients = false;
};

// softmax(q k^T + bias) v: [B,H,S,C], in q's dtype, to which the bias is cast; the softmax in at
// least float32. Keys that are masked (not allowed, or in the future) have no influence, except in
// rows where all keys are masked: those take the mean of v over all L keys. B may be 0.
// float32, float64 or bfloat16. Differentiable in q, k, v and the bias, whose gradient is summed
// over the rows of the batch, in the same order every time. Where neither dropout acts nor anything
// needs a gradient nor bias.for_gradients is set, LibTorch's fused kernel; otherwise on a CPU, if
// there are many, piece by piece (biased_attention.h), and else the probabilities are written out.
at::Tensor RelativeAttention(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                             const at::Tensor& v_BHLC, const AttentionBias& bias,
                             const AttentionDropout& dropout);

// Whether all probabilities of a row's head are in memory where gradients are needed, and kept for
// backward; otherwise they are made piece by piece.
bool WritesOutProbabilities(int64_t queries, int64_t keys, at::DeviceType device);

}  // namespace hypermoe
