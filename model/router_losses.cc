#include "model/router_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/scatter_add.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace hypermoe {
namespace {

constexpr double kEpsilon = 1e-10;

int64_t NumExperts(const RoutingResult& layer) { return layer.probs_TN.size(1); }

// [rows, tokens of a row, columns] of a tensor [T, columns].
at::Tensor ByRow(const at::Tensor& values, int64_t row_tokens) {
  return values.view({-1, row_tokens, values.size(1)});
}

// Sums over the tokens of each row and their choices, by chosen expert: [rows, N].
at::Tensor SumByExpert(const at::Tensor& values_TK, const RoutingResult& layer,
                       int64_t row_tokens) {
  const int64_t row_choices = row_tokens * values_TK.size(1),
                rows = row_choices == 0 ? 0 : values_TK.numel() / row_choices;
  return at::scatter_add(at::zeros({rows, NumExperts(layer)}, values_TK.options()), 1,
                         layer.expert_ids_TK.reshape({rows, row_choices}),
                         values_TK.reshape({rows, row_choices}));
}

at::Tensor ImportanceByRow(const RoutingResult& layer, int64_t row_tokens) {
  return SumByExpert(layer.gate_TK, layer, row_tokens);
}

// float32, whatever the precision of the router is.
at::TensorOptions OnDeviceOf(const std::vector<RoutingResult>& routing) {
  return at::device(routing[0].logits_TN.device());
}

at::Tensor LoadByRow(const RoutingResult& layer, int64_t row_tokens) {
  return layer.load_TN.defined()
             ? ByRow(layer.load_TN, row_tokens).sum(1)
             : SumByExpert(at::ones_like(layer.gate_TK.detach()), layer, row_tokens);
}

// Choices of this rank by layer and expert: all of them, and those that it has no room for.
std::vector<at::Tensor> CountChoices(const std::vector<RoutingResult>& routing) {
  std::vector<at::Tensor> all, dropped;
  for (const RoutingResult& layer : routing) {
    const int64_t num_experts = NumExperts(layer);
    all.push_back(at::bincount(layer.expert_ids_TK.flatten(), {}, num_experts));
    dropped.push_back(layer.taken_TK.defined() ? at::bincount(layer.expert_ids_TK.masked_select(
                                                                  layer.taken_TK.logical_not()),
                                                              {}, num_experts)
                                               : at::zeros_like(all.back()));
  }
  return {at::stack(all).to(at::kDouble), at::stack(dropped).to(at::kDouble)};
}

// Squared coefficient of variation along the last axis.
at::Tensor Cv2(const at::Tensor& values) {
  const int64_t count = values.size(-1);
  if (count == 1) return values.squeeze(-1) * 0;
  // Not at::var, which warns where there are no rows.
  const at::Tensor mean = values.mean(-1, /*keepdim=*/true);
  const at::Tensor variance = (values - mean).pow(2).sum(-1) / static_cast<double>(count - 1);
  return variance / (mean.squeeze(-1).pow(2) + kEpsilon);
}

// Its derivative by each value.
at::Tensor Cv2Gradient(const at::Tensor& values) {
  const auto count = static_cast<double>(values.size(-1));
  if (count == 1) return values * 0;
  const at::Tensor mean = values.mean(-1, /*keepdim=*/true);
  const at::Tensor deviation = values - mean, scale = mean.pow(2) + kEpsilon;
  const at::Tensor variance = deviation.pow(2).sum(-1, /*keepdim=*/true) / (count - 1);
  return deviation * (2 / (count - 1)) / scale - variance * mean * (2 / count) / scale.pow(2);
}

// A statistic that cv2 is taken of: this rank's sums by row, of every layer.
using Statistic = at::Tensor (*)(const RoutingResult& layer, int64_t row_tokens);

at::Tensor StackLayers(const std::vector<RoutingResult>& routing, Statistic statistic,
                       int64_t row_tokens) {
  std::vector<at::Tensor> layers;
  for (const RoutingResult& layer : routing) layers.push_back(statistic(layer, row_tokens));
  return at::stack(layers);  // [L, rows, N]
}

// This rank's share of the sum over layers of cv2(global_LN), where global_LN is local_LN summed
// over ranks: a rank needs only the former to differentiate its own part. The values are equal
// parts.
at::Tensor ShareOfGlobalCv2(const at::Tensor& local_LN, const at::Tensor& global_LN,
                            int64_t num_ranks) {
  const at::Tensor linear = (Cv2Gradient(global_LN).to(local_LN.scalar_type()) * local_LN).sum();
  const at::Tensor value = Cv2(global_LN).sum() / static_cast<double>(num_ranks);
  return linear - linear.detach() + value.to(local_LN.scalar_type());
}

// Statistics over all tokens of the micro-batch. f is constant in backward, so a rank needs only
// the global f to differentiate its own part of P.
at::Tensor SwitchBalanceOfMicroBatch(const std::vector<RoutingResult>& routing,
                                     const at::Tensor& tokens_LN) {
  std::vector<at::Tensor> prob_sums;
  for (const RoutingResult& layer : routing) prob_sums.push_back(layer.probs_TN.sum(0));
  const at::Tensor prob_sums_LN = at::stack(prob_sums);
  const at::Tensor tokens = tokens_LN.to(prob_sums_LN.scalar_type());
  const int64_t top_k = routing[0].expert_ids_TK.size(1), num_experts = tokens_LN.size(1);
  // Every layer routes the same tokens; max(1) keeps a micro-batch without rows at 0.
  const at::Tensor choices_L1 = tokens.sum(1, /*keepdim=*/true).clamp_min(1);
  return (tokens / (choices_L1 * choices_L1) * prob_sums_LN).sum() *
         static_cast<double>(num_experts * top_k);
}

// The sum over layers and this rank's rows of their losses.
at::Tensor SwitchBalanceOfRows(const std::vector<RoutingResult>& routing, int64_t row_tokens) {
  at::Tensor sum = at::zeros({}, OnDeviceOf(routing));
  for (const RoutingResult& layer : routing) {
    const at::Tensor mean_BN = ByRow(layer.probs_TN, row_tokens).mean(1);
    const auto row_choices = static_cast<double>(row_tokens * layer.expert_ids_TK.size(1));
    const at::Tensor share_BN =
        SumByExpert(at::ones_like(layer.gate_TK.detach()), layer, row_tokens) / row_choices;
    sum = sum + (mean_BN * share_BN).sum() * static_cast<double>(NumExperts(layer));
  }
  return sum;
}

at::Tensor RouterZ(const std::vector<RoutingResult>& routing, double batch_tokens) {
  at::Tensor sum = at::zeros({}, OnDeviceOf(routing));
  for (const RoutingResult& layer : routing) {
    sum = sum + at::logsumexp(layer.logits_TN, 1).pow(2).sum();
  }
  return sum / batch_tokens;
}

}  // namespace

at::Tensor RouterLosses::Total() const { return switch_balance + importance + load + router_z; }

RouterLosses ComputeRouterLosses(const std::vector<RoutingResult>& routing, int64_t sequence_length,
                                 const ModelConfig& model, const BatchScale& scale,
                                 Communicator& world) {
  RouterLosses losses;
  losses.switch_balance = losses.importance = losses.load = losses.router_z =
      at::zeros({}, routing.empty() ? at::TensorOptions() : OnDeviceOf(routing));
  losses.tokens_LN = losses.dropped_LN = at::zeros({0, 0}, at::kLong);
  if (routing.empty()) return losses;

  const bool by_row = model.balance_loss().scope() == BalanceLossConfig::row;
  struct Cv2Loss {
    Statistic statistic;
    double coefficient;
    at::Tensor* loss;
    at::Tensor local_LN;
  };
  std::vector<Cv2Loss> cv2_losses;
  if (model.importance_coefficient() > 0) {
    cv2_losses.push_back({ImportanceByRow, model.importance_coefficient(), &losses.importance, {}});
  }
  if (model.load_coefficient() > 0) {
    cv2_losses.push_back({LoadByRow, model.load_coefficient(), &losses.load, {}});
  }
  std::vector<at::Tensor> sums = CountChoices(routing);
  for (Cv2Loss& cv2 : cv2_losses) {
    const at::Tensor by_row_LBN = StackLayers(routing, cv2.statistic, sequence_length);
    if (by_row) {
      *cv2.loss =
          Cv2(by_row_LBN).sum() * (cv2.coefficient / static_cast<double>(scale.global_rows));
    } else {
      cv2.local_LN = by_row_LBN.sum(1);
      sums.push_back(cv2.local_LN.detach().to(at::kDouble));
    }
  }
  // Counts are exact in float64.
  const at::Tensor global_sums = at::stack(sums);
  world.AllReduceSum(global_sums);
  losses.tokens_LN = global_sums[0].to(at::kLong);
  losses.dropped_LN = global_sums[1].to(at::kLong);

  const auto micro_batches = static_cast<double>(scale.num_micro_batches);
  for (size_t i = 0; i < cv2_losses.size() && !by_row; ++i) {
    *cv2_losses[i].loss = ShareOfGlobalCv2(cv2_losses[i].local_LN,
                                           global_sums[static_cast<int64_t>(i) + 2], world.size()) *
                          (cv2_losses[i].coefficient / micro_batches);
  }
  if (model.balance_loss().coefficient() > 0) {
    const at::Tensor balance =
        by_row
            ? SwitchBalanceOfRows(routing, sequence_length) / static_cast<double>(scale.global_rows)
            : SwitchBalanceOfMicroBatch(routing, losses.tokens_LN) / micro_batches;
    losses.switch_balance = balance * model.balance_loss().coefficient();
  }
  if (model.router_z_coefficient() > 0) {
    const double batch_tokens =
        static_cast<double>(scale.global_rows) * static_cast<double>(sequence_length);
    losses.router_z = RouterZ(routing, batch_tokens) * model.router_z_coefficient();
  }
  return losses;
}

}  // namespace hypermoe
