// What trains routers beside the language-model loss. Of one sparse layer, over a set of T tokens
// with K choices each, N experts; each times its coefficient, summed over sparse layers:
//   switch_balance  N sum_e f_e P_e,  f_e = share of the K T choices that fall on e,  P_e = mean
//                   probability of e (Switch Transformer, arXiv:2101.03961, Eq. 4)
//   importance      cv2 of the sums of gates by expert (Shazeer et al. 2017, arXiv:1701.06538, Eq.
//                   7)
//   load            cv2 of the sums of the probabilities to be chosen (there, Eq. 11); without gate
//                   noise, so in evaluation, of the counts of choices, which have no gradient
//   router_z        mean over tokens of logsumexp(logits)^2 (ST-MoE, arXiv:2202.08906, Eq. 5)
// cv2(v) = unbiased variance / (mean^2 + 1e-10), 0 for one expert. All look at choices before the
// experts' capacity. But for router_z they are not sums over tokens, so they have a scope
// (configs/run.proto, BalanceLossConfig). In scope stack_row, Hugging Face's of
// switch_transformers, the set of tokens is a row's in all sparse layers of a stack together, for
// router_z too, stacks are summed, and one whose step is 1 has neither loss; there are no others.
//
// Legend: L sparse layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "configs/run.pb.h"
#include "model/router.h"
#include "parallel/communicator.h"

namespace hypermoe {

// This rank's shares of a micro-batch's losses, ready for backward: the sum over the world and over
// the micro-batches of a step is the step's loss. Scalars, differentiable; 0 without sparse layers
// and where the coefficient is 0.
struct RouterLosses {
  at::Tensor switch_balance, importance, load, router_z;
  // int64: choices of the whole micro-batch by sparse layer and expert, over the world, and those
  // of them for which the expert had no room.
  at::Tensor tokens_LN, dropped_LN;

  at::Tensor Total() const;
};

// The batch that losses are means over.
struct BatchScale {
  int64_t num_micro_batches = 1;
  int64_t global_rows = 0;  // rows of all micro-batches on all ranks
};

// `routing`: the decisions of every sparse layer for this rank's rows of the micro-batch; rows have
// the same length on all ranks and in all micro-batches. `model` gives coefficients and scope. One
// small all-reduce for all layers and losses, with zero rows too: collective over `world`.
RouterLosses ComputeRouterLosses(const std::vector<RoutingResult>& routing,
                                 const ModelConfig& model, const BatchScale& scale,
                                 Communicator& world);

}  // namespace hypermoe
