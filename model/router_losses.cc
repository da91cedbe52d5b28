#include "model/router_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/scatter_add.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <utility>

#include "kernels/route_sums.h"

namespace hypermoe {
namespace {

constexpr double kEpsilon = 1e-10;

// A sparse layer's decisions, and their sums: of each row, or of all as one.
struct Layer {
  RoutingResult routing;
  RouteSums sums;
};

// Tokens of a row; of a rank without rows, all of whose sums are 0, it does not matter.
double RowTokens(const RoutingResult& layer) {
  const int64_t tokens = layer.probs_TN.size(0);
  return tokens == 0 ? 1.0 : static_cast<double>(tokens / layer.num_rows);
}

std::vector<Layer> SumLayers(const std::vector<RoutingResult>& routing, bool by_row) {
  std::vector<Layer> layers;
  for (const RoutingResult& decision : routing) {
    const int64_t rows = by_row ? decision.num_rows : 1;
    layers.push_back(
        {decision, SumRoutes(decision.probs_TN, decision.expert_ids_TK, decision.gate_TK, rows)});
  }
  return layers;
}

at::Tensor Importance(const Layer& layer) { return layer.sums.gates_BN; }

at::Tensor Load(const Layer& layer) {
  const at::Tensor &load_TN = layer.routing.load_TN, &choices_BN = layer.sums.choices_BN;
  if (!load_TN.defined()) return choices_BN.to(layer.sums.gates_BN.scalar_type());
  const int64_t rows = choices_BN.size(0), experts = choices_BN.size(1);
  return load_TN.view({rows, rows == 0 ? 0 : load_TN.size(0) / rows, experts}).sum(1);
}

// int64, in the rows of sums.choices_BN: those for which the expert has no room.
at::Tensor DroppedChoices(const Layer& layer) {
  const auto& [routing, sums] = layer;
  const at::Tensor none_BN = at::zeros_like(sums.choices_BN);
  const int64_t rows = none_BN.size(0);
  if (!routing.taken_TK.defined() || rows == 0) return none_BN;
  return at::scatter_add(none_BN, 1, routing.expert_ids_TK.reshape({rows, -1}),
                         routing.taken_TK.logical_not().reshape({rows, -1}).to(at::kLong));
}

// Choices of this rank by layer and expert: all of them, and those that it has no room for.
std::vector<at::Tensor> CountChoices(const std::vector<Layer>& layers) {
  std::vector<at::Tensor> all, dropped;
  for (const Layer& layer : layers) {
    all.push_back(layer.sums.choices_BN.sum(0));
    dropped.push_back(DroppedChoices(layer).sum(0));
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

// A statistic that cv2 is taken of: this rank's sums, of every layer.
using Statistic = at::Tensor (*)(const Layer& layer);

at::Tensor StackLayers(const std::vector<Layer>& layers, Statistic statistic) {
  std::vector<at::Tensor> values;
  for (const Layer& layer : layers) values.push_back(statistic(layer));
  return at::stack(values);  // [L, B, N]
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
at::Tensor SwitchBalanceOfMicroBatch(const std::vector<Layer>& layers,
                                     const at::Tensor& tokens_LN) {
  std::vector<at::Tensor> prob_sums;
  for (const Layer& layer : layers) prob_sums.push_back(layer.sums.probs_BN.squeeze(0));
  const at::Tensor prob_sums_LN = at::stack(prob_sums);
  const at::Tensor tokens = tokens_LN.to(prob_sums_LN.scalar_type());
  const int64_t top_k = layers[0].routing.expert_ids_TK.size(1), num_experts = tokens_LN.size(1);
  // max(1) keeps a micro-batch without rows at 0.
  const at::Tensor choices_L1 = tokens.sum(1, /*keepdim=*/true).clamp_min(1);
  return (tokens / (choices_L1 * choices_L1) * prob_sums_LN).sum() *
         static_cast<double>(num_experts * top_k);
}

at::Tensor Zero(const std::vector<Layer>& layers) {
  return at::zeros({}, layers[0].sums.probs_BN.options().requires_grad(false));
}

// The sum over rows of N sum_e f_e P_e, from sums over a row's tokens and choices.
at::Tensor BalanceOfRows(const at::Tensor& probs_BN, const at::Tensor& choices_BN,
                         double row_tokens, double row_choices) {
  const at::Tensor mean_BN = probs_BN / row_tokens;
  const at::Tensor share_BN = choices_BN.to(mean_BN.scalar_type()) / row_choices;
  return (mean_BN * share_BN).sum() * static_cast<double>(mean_BN.size(1));
}

// The sum over layers and this rank's rows of their losses.
at::Tensor SwitchBalanceOfRows(const std::vector<Layer>& layers) {
  at::Tensor sum = Zero(layers);
  for (const auto& [routing, sums] : layers) {
    const double tokens = RowTokens(routing);
    sum = sum + BalanceOfRows(sums.probs_BN, sums.choices_BN, tokens,
                              tokens * static_cast<double>(routing.expert_ids_TK.size(1)));
  }
  return sum;
}

// The sum over layers and this rank's rows of the mean over a row's tokens.
at::Tensor RouterZOfRows(const std::vector<Layer>& layers) {
  at::Tensor sum = Zero(layers);
  for (const auto& [routing, sums] : layers)
    sum = sum + routing.log_sum_T.pow(2).sum() / RowTokens(routing);
  return sum;
}

// The sparse layers of a stack for scope stack_row, as one: their sums added up row by row.
struct StackSums {
  at::Tensor probs_BN, choices_BN;
  double row_tokens = 0, row_choices = 0;
};

StackSums SumStack(const std::vector<Layer>& layers, bool dropped_count_as_first) {
  StackSums stack;
  const auto add = [](at::Tensor& sum, const at::Tensor& more) {
    sum = sum.defined() ? sum + more : more;
  };
  for (const Layer& layer : layers) {
    const double tokens = RowTokens(layer.routing);
    stack.row_tokens += tokens;
    stack.row_choices += tokens * static_cast<double>(layer.routing.expert_ids_TK.size(1));
    add(stack.probs_BN, layer.sums.probs_BN);
    at::Tensor choices_BN = layer.sums.choices_BN;
    if (dropped_count_as_first) {
      const at::Tensor dropped_BN = DroppedChoices(layer);
      choices_BN = choices_BN - dropped_BN;
      choices_BN.select(1, 0).add_(dropped_BN.sum(1));
    }
    add(stack.choices_BN, choices_BN);
  }
  return stack;
}

// By stack; only of stacks that have losses in scope stack_row.
std::vector<std::vector<Layer>> LayersByStack(const std::vector<Layer>& layers,
                                              const ModelConfig& model) {
  std::vector<std::vector<Layer>> stacks;
  for (const Stack stack : {Stack::kEncoder, Stack::kDecoder}) {
    const bool encoder = stack == Stack::kEncoder;
    if ((encoder ? model.encoder_sparse_step() : model.decoder_sparse_step()) == 1) continue;
    std::vector<Layer> mine;
    for (const Layer& layer : layers) {
      if (layer.routing.stack == stack) mine.push_back(layer);
    }
    if (!mine.empty()) stacks.push_back(std::move(mine));
  }
  return stacks;
}

at::Tensor SwitchBalanceOfStackRows(const std::vector<Layer>& layers, const ModelConfig& model) {
  at::Tensor sum = Zero(layers);
  for (const std::vector<Layer>& stack : LayersByStack(layers, model)) {
    const StackSums sums = SumStack(stack, model.balance_loss().dropped_count_as_first());
    sum = sum + BalanceOfRows(sums.probs_BN, sums.choices_BN, sums.row_tokens, sums.row_choices);
  }
  return sum;
}

at::Tensor RouterZOfStackRows(const std::vector<Layer>& layers, const ModelConfig& model) {
  at::Tensor sum = Zero(layers);
  for (const std::vector<Layer>& stack : LayersByStack(layers, model)) {
    // The layers of a stack see equally many tokens.
    sum = sum + RouterZOfRows(stack) / static_cast<double>(stack.size());
  }
  return sum;
}

}  // namespace

at::Tensor RouterLosses::Total() const { return switch_balance + importance + load + router_z; }

RouterLosses ComputeRouterLosses(const std::vector<RoutingResult>& routing,
                                 const ModelConfig& model, const BatchScale& scale,
                                 Communicator& world) {
  RouterLosses losses;
  const at::TensorOptions on_device = at::device(world.device()).dtype(at::kFloat);
  losses.switch_balance = losses.importance = losses.load = losses.router_z =
      at::zeros({}, on_device);
  losses.tokens_LN = losses.dropped_LN = at::zeros({0, 0}, at::kLong);
  if (routing.empty()) return losses;

  const BalanceLossConfig& balance = model.balance_loss();
  const bool by_row = balance.scope() != BalanceLossConfig::micro_batch;
  struct Cv2Loss {
    Statistic statistic;
    double coefficient;
    at::Tensor* loss;
    at::Tensor local_LN;
  };
  std::vector<Cv2Loss> cv2_losses;
  if (model.importance_coefficient() > 0) {
    cv2_losses.push_back({Importance, model.importance_coefficient(), &losses.importance, {}});
  }
  if (model.load_coefficient() > 0) {
    cv2_losses.push_back({Load, model.load_coefficient(), &losses.load, {}});
  }
  const auto micro_batches = static_cast<double>(scale.num_micro_batches),
             global_rows = static_cast<double>(scale.global_rows);
  const std::vector<Layer> layers = SumLayers(routing, by_row);
  std::vector<at::Tensor> sums = CountChoices(layers);
  for (Cv2Loss& cv2 : cv2_losses) {
    const at::Tensor local_LBN = StackLayers(layers, cv2.statistic);
    if (by_row) {
      *cv2.loss = Cv2(local_LBN).sum() * (cv2.coefficient / global_rows);
    } else {
      cv2.local_LN = local_LBN.squeeze(1);
      sums.push_back(cv2.local_LN.detach().to(at::kDouble));
    }
  }
  // Counts are exact in float64.
  const at::Tensor global_sums = at::stack(sums);
  world.AllReduceSum(global_sums);
  losses.tokens_LN = global_sums[0].to(at::kLong);
  losses.dropped_LN = global_sums[1].to(at::kLong);

  for (size_t i = 0; i < cv2_losses.size() && !by_row; ++i) {
    *cv2_losses[i].loss = ShareOfGlobalCv2(cv2_losses[i].local_LN,
                                           global_sums[static_cast<int64_t>(i) + 2], world.size()) *
                          (cv2_losses[i].coefficient / micro_batches);
  }
  const bool by_stack = balance.scope() == BalanceLossConfig::stack_row;
  if (balance.coefficient() > 0) {
    const at::Tensor share =
        by_stack ? SwitchBalanceOfStackRows(layers, model) / global_rows
        : by_row ? SwitchBalanceOfRows(layers) / global_rows
                 : SwitchBalanceOfMicroBatch(layers, losses.tokens_LN) / micro_batches;
    losses.switch_balance = share * balance.coefficient();
  }
  if (model.router_z_coefficient() > 0) {
    const at::Tensor sum = by_stack ? RouterZOfStackRows(layers, model) : RouterZOfRows(layers);
    losses.router_z = sum * (model.router_z_coefficient() / global_rows);
  }
  return losses;
}

}  // namespace hypermoe
