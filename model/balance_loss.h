// Load-balancing loss of the Switch Transformer (arXiv:2101.03961, Eq. 4), for one sparse layer
// over a set of T tokens:
//   N * sum_e f_e P_e,  f_e = share of the tokens routed to e,  P_e = mean probability of e,
// summed over sparse layers. It is not a sum over tokens, so it has a scope (configs/run.proto,
// BalanceLossConfig).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "configs/run.pb.h"
#include "model/router.h"
#include "parallel/communicator.h"

namespace hypermoe {

// This rank's share of a micro-batch's loss, ready for backward: the sum over the world and over
// the micro-batches of a step is the step's loss, coefficient included.
struct BalanceLoss {
  at::Tensor share;       // scalar, differentiable; 0 if there is no sparse layer
  at::Tensor tokens_LN;   // int64: tokens of the whole micro-batch by sparse layer and expert, over
                          // the world
  at::Tensor dropped_LN;  // those of them for which the expert had no room
};

struct BalanceScale {
  int64_t num_micro_batches = 1;
  int64_t global_rows = 0;  // rows of the whole batch (scope row)
};

// `routing`: the decisions of every sparse layer for this rank's rows, each of sequence_length
// tokens. One small all-reduce for all layers, with zero rows too: collective over `world`.
BalanceLoss ComputeBalanceLoss(const std::vector<RoutingResult>& routing, int64_t sequence_length,
                               const BalanceLossConfig& config, const BalanceScale& scale,
                               Communicator& world);

// Router z loss (ST-MoE, arXiv:2202.08906, Eq. 5): this rank's share of the sum over sparse layers
// of the mean over `batch_tokens` (all tokens of the step's batch) of logsumexp(router logits)^2. A
// sum over tokens, so it needs no collective. Scalar, differentiable; 0 without sparse layers.
at::Tensor RouterZLoss(const std::vector<RoutingResult>& routing, double batch_tokens);

}  // namespace hypermoe
