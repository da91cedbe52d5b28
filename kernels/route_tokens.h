// What a router decides from its logits: probabilities, the likeliest experts and their gates, in
// one pass over a token's experts, and one in backward.
//
// Legend: T tokens, N experts, K choices of each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hypermoe {

// On the logits' device; all but the ids in their dtype and differentiable.
struct TokenRoutes {
  at::Tensor probs_TN;       // softmax over the experts
  at::Tensor expert_ids_TK;  // int64; the likeliest first, the lower id where probabilities are
                             // equal; 0, 1, ... where they are NaN
  at::Tensor gate_TK;        // g[t,k] = p[t, id[t,k]], or that divided by its sum over k
  at::Tensor log_sum_T;      // log of the sum of exp(logit) over the experts
};

// logits_TN: float32 or float64. 1 <= choices <= N. renormalize: gates of a token sum to 1.
// chosen_TK: int64, ids to take (and to return) instead of the likeliest; undefined: none. Throws
// c10::Error for what does not fit together, and on the CPU for chosen ids outside [0, N); on a
// GPU their gates are NaN. The same bits every time, for any number of threads.
TokenRoutes RouteTokens(const at::Tensor& logits_TN, int64_t choices, bool renormalize,
                        const at::Tensor& chosen_TK = {});

}  // namespace hypermoe
