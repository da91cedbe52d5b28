#include "model/balance_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

namespace hypermoe {
namespace {

// Tokens of this rank by layer and selected expert: all of them, and those that it has no room for.
at::Tensor CountTokens(const std::vector<RoutingResult>& routing) {
  const int64_t num_experts = routing[0].probs_TN.size(1);
  std::vector<at::Tensor> all, dropped;
  for (const RoutingResult& layer : routing) {
    all.push_back(at::bincount(layer.expert_ids_T, {}, num_experts));
    dropped.push_back(layer.taken_T.defined() ? at::bincount(layer.expert_ids_T.masked_select(
                                                                 layer.taken_T.logical_not()),
                                                             {}, num_experts)
                                              : at::zeros({num_experts}, at::kLong));
  }
  return at::stack({at::stack(all), at::stack(dropped)});
}

// Statistics over all tokens of the micro-batch. f is constant in backward, so a rank needs only
// the global f to differentiate its own part of P.
at::Tensor MicroBatchShare(const std::vector<RoutingResult>& routing, const at::Tensor& tokens_LN) {
  const int64_t num_experts = tokens_LN.size(1);
  std::vector<at::Tensor> prob_sums;
  for (const RoutingResult& layer : routing) prob_sums.push_back(layer.probs_TN.sum(0));
  const at::Tensor prob_sums_LN = at::stack(prob_sums);
  const at::Tensor tokens = tokens_LN.to(prob_sums_LN.scalar_type());
  // Every layer routes the same tokens; max(1) keeps a micro-batch without rows at 0.
  const at::Tensor total_L1 = tokens.sum(1, /*keepdim=*/true).clamp_min(1);
  return (tokens / (total_L1 * total_L1) * prob_sums_LN).sum() * static_cast<double>(num_experts);
}

// Statistics of each row alone, averaged over the rows of the whole batch.
at::Tensor RowShare(const std::vector<RoutingResult>& routing, int64_t sequence_length,
                    int64_t global_rows) {
  at::Tensor share;
  for (const RoutingResult& layer : routing) {
    const int64_t num_experts = layer.probs_TN.size(1);
    const at::Tensor mean_BN = layer.probs_TN.view({-1, sequence_length, num_experts}).mean(1);
    const at::Tensor chosen_BN = at::one_hot(layer.expert_ids_T, num_experts)
                                     .view({-1, sequence_length, num_experts})
                                     .sum(1)
                                     .to(mean_BN.scalar_type())
                                     .div_(static_cast<double>(sequence_length));
    const at::Tensor layer_share = (mean_BN * chosen_BN).sum() * (static_cast<double>(num_experts) /
                                                                  static_cast<double>(global_rows));
    share = share.defined() ? share + layer_share : layer_share;
  }
  return share;
}

}  // namespace

BalanceLoss ComputeBalanceLoss(const std::vector<RoutingResult>& routing, int64_t sequence_length,
                               const BalanceLossConfig& config, const BalanceScale& scale,
                               Communicator& world) {
  BalanceLoss result;
  if (routing.empty()) {
    result.share = at::zeros({});
    result.tokens_LN = result.dropped_LN = at::zeros({0, 0}, at::kLong);
    return result;
  }
  const at::Tensor counts_2LN = CountTokens(routing);
  world.AllReduceSum(counts_2LN);
  result.tokens_LN = counts_2LN[0];
  result.dropped_LN = counts_2LN[1];
  const bool row = config.scope() == BalanceLossConfig::row;
  const at::Tensor share = row ? RowShare(routing, sequence_length, scale.global_rows)
                               : MicroBatchShare(routing, result.tokens_LN) /
                                     static_cast<double>(scale.num_micro_batches);
  result.share = share * config.coefficient();
  return result;
}

at::Tensor RouterZLoss(const std::vector<RoutingResult>& routing, double batch_tokens) {
  at::Tensor sum = at::zeros({});
  for (const RoutingResult& layer : routing) {
    sum = sum + at::logsumexp(layer.logits_TN, 1).pow(2).sum();
  }
  return sum / batch_tokens;
}

}  // namespace hypermoe
