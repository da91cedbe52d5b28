// Multi-head causal attention (arXiv:1706.03762, Eq. 1), scale 1/sqrt(head width).
//
// Legend: B rows, H heads, S query positions, L key positions, C head width.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/attention.h"

namespace hypermoe {

// [B,H,S,C]: query s attends to keys 0 .. L - S + s (the queries are the last S of L positions; S
// == L or S == 1). B may be 0. float32, float64 or bfloat16. Differentiable. Without dropout
// LibTorch's fused kernel, which keeps no probabilities.
at::Tensor CausalAttention(const at::Tensor& q_BHSC, const at::Tensor& k_BHLC,
                           const at::Tensor& v_BHLC, const AttentionDropout& dropout);

}  // namespace hypermoe
