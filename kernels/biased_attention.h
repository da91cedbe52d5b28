// Attention with a bias of the scores that has a gradient, on the CPU, without a matrix of all
// scores: piece by piece of the queries, whose scores stay in a cache, and which backward makes
// once more (as FlashAttention, arXiv:2205.14135). LibTorch's fused kernel knows no gradient of a
// bias, and has wrong ones where all keys of a query are masked.
//
// Legend: B rows, H heads, S query positions, L key positions, C head width.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/attention.h"

namespace hypermoe {

// dropout(softmax(q k^T + bias + mask)) v: [B,H,S,C], in q's dtype, to which the bias is cast;
// scores and softmax in at least float32. bias_HSL: undefined: none. mask: of the scores'
// precision, [B or 1, 1, S or 1, L], undefined: none. float32, float64 or bfloat16. Differentiable
// in q, k, v and the bias, whose gradient is summed over the rows of the batch in order. The same
// bits whatever the threads are.
at::Tensor BiasedAttention(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                           const at::Tensor& v_BHLC, const at::Tensor& bias_HSL,
                           const at::Tensor& mask, const AttentionDropout& dropout);

}  // namespace hypermoe
