#include "model/router_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

namespace hypermoe {
namespace {

// Two rows of two tokens, top-2 of three experts, numbers that can be followed by hand.
RoutingResult Decision() {
  RoutingResult decision;
  decision.probs_TN =
      at::tensor({0.6, 0.3, 0.1, /**/ 0.2, 0.5, 0.3, /**/ 0.7, 0.1, 0.2, /**/ 0.4, 0.1, 0.5})
          .view({4, 3})
          .set_requires_grad(true);
  decision.logits_TN = decision.probs_TN.log() + 1;
  decision.log_sum_T = decision.logits_TN.logsumexp(1);
  decision.expert_ids_TK = at::tensor({0L, 1L, 1L, 2L, 0L, 2L, 2L, 0L}).view({4, 2});
  decision.gate_TK = decision.probs_TN.gather(1, decision.expert_ids_TK);
  decision.taken_TK = at::tensor({1, 1, 1, 0, 1, 1, 0, 1}).view({4, 2}).to(at::kBool);
  decision.num_rows = 2;
  return decision;
}

double Cv2(std::vector<double> v) {
  double mean = 0, variance = 0;
  for (const double x : v) mean += x / static_cast<double>(v.size());
  for (const double x : v) variance += (x - mean) * (x - mean) / static_cast<double>(v.size() - 1);
  return variance / (mean * mean + 1e-10);
}

RouterLosses Losses(const ModelConfig& config, const std::vector<RoutingResult>& routing,
                    int64_t micro_batches = 1) {
  const auto world = NewSelfCommunicator("world");
  return ComputeRouterLosses(routing, config, {micro_batches, 2}, *world);
}

TEST(RouterLossesTest, AreTheirFormulasOverAMicroBatch) {
  ModelConfig config;
  config.mutable_balance_loss()->set_coefficient(0.5);
  config.set_importance_coefficient(0.25);
  config.set_load_coefficient(2);
  config.set_router_z_coefficient(3);
  const RouterLosses losses = Losses(config, {Decision(), Decision()});
  // f = 3/8, 2/8, 3/8; P = 1.9/4, 1/4, 1.1/4.
  const double balance = 3 * (3 * 1.9 + 2 * 1.0 + 3 * 1.1) / 32;
  EXPECT_NEAR(losses.switch_balance.item<double>(), 2 * 0.5 * balance, 1e-14);
  EXPECT_NEAR(losses.importance.item<double>(), 2 * 0.25 * Cv2({1.7, 0.8, 1.0}), 1e-14);
  EXPECT_NEAR(losses.load.item<double>(), 2 * 2 * Cv2({3, 2, 3}), 1e-14);
  // The logits are logarithms of probabilities and 1, whose logsumexp is 1; of 4 of 4 tokens.
  EXPECT_NEAR(losses.router_z.item<double>(), 2 * 3 * 1, 1e-13);
  EXPECT_TRUE(losses.tokens_LN[1].equal(at::tensor({3L, 2L, 3L})));
  EXPECT_TRUE(losses.dropped_LN[0].equal(at::tensor({0L, 0L, 2L})));
  EXPECT_NEAR(
      losses.Total().item<double>(),
      (losses.switch_balance + losses.importance + losses.load + losses.router_z).item<double>(),
      1e-13);
}

TEST(RouterLossesTest, OfRowsAreTheirMeans) {
  ModelConfig config;
  config.mutable_balance_loss()->set_scope(BalanceLossConfig::row);
  config.mutable_balance_loss()->set_coefficient(1);
  config.set_importance_coefficient(1);
  config.set_load_coefficient(1);
  const RouterLosses losses = Losses(config, {Decision()});
  const double first = 3 * (1 * 0.8 + 2 * 0.8 + 1 * 0.4) / 8,
               second = 3 * (2 * 1.1 + 0 + 2 * 0.7) / 8;
  EXPECT_NEAR(losses.switch_balance.item<double>(), (first + second) / 2, 1e-14);
  EXPECT_NEAR(losses.importance.item<double>(), (Cv2({0.6, 0.8, 0.3}) + Cv2({1.1, 0, 0.7})) / 2,
              1e-14);
  EXPECT_NEAR(losses.load.item<double>(), (Cv2({1, 2, 1}) + Cv2({2, 0, 2})) / 2, 1e-14);
}

// Hugging Face's: the layers of a stack are one set of a row's tokens, and stacks are added.
TEST(RouterLossesTest, OfStacksPoolTheirLayers) {
  ModelConfig config;
  config.set_family(ModelConfig::switch_transformers);
  config.mutable_balance_loss()->set_scope(BalanceLossConfig::stack_row);
  config.mutable_balance_loss()->set_coefficient(1);
  config.set_router_z_coefficient(1);
  RoutingResult encoder = Decision(), other = Decision();
  encoder.stack = other.stack = Stack::kEncoder;
  other.probs_TN = other.probs_TN.detach().flip(1);
  other.log_sum_T = other.log_sum_T.detach() * 2;
  const std::vector<RoutingResult> routing = {encoder, other, Decision()};
  // By row: choices of both encoder layers (2,4,2), (4,0,4); probabilities (1.2,1.6,1.2),
  // (1.8,0.4,1.8), of 4 tokens and 8 choices.
  const double first = 3 * (2 * 1.2 + 4 * 1.6 + 2 * 1.2) / 32,
               second = 3 * (4 * 1.8 + 0 + 4 * 1.8) / 32;
  const double decoder = 3 * ((1 * 0.8 + 2 * 0.8 + 1 * 0.4) + (2 * 1.1 + 0 + 2 * 0.7)) / 8;
  const RouterLosses losses = Losses(config, routing);
  EXPECT_NEAR(losses.switch_balance.item<double>(), (first + second + decoder) / 2, 1e-14);
  EXPECT_NEAR(losses.router_z.item<double>(), (1.0 + 4.0) / 2 + 1, 1e-13);

  // A stack all of whose blocks are sparse has none.
  config.set_decoder_sparse_step(1);
  EXPECT_NEAR(Losses(config, routing).switch_balance.item<double>(), (first + second) / 2, 1e-14);
  EXPECT_NEAR(Losses(config, routing).router_z.item<double>(), (1.0 + 4.0) / 2, 1e-13);

  // In each row of each layer one choice of the last expert is dropped.
  config.mutable_balance_loss()->set_dropped_count_as_first(true);
  const double first_moved = 3 * (4 * 1.2 + 4 * 1.6 + 0) / 32,
               second_moved = 3 * (6 * 1.8 + 0 + 2 * 1.8) / 32;
  EXPECT_NEAR(Losses(config, routing).switch_balance.item<double>(),
              (first_moved + second_moved) / 2, 1e-14);
}

// The gradient of the micro-batch form, which is put together from sums, against differences.
TEST(RouterLossesTest, GradientOfImportanceAndLoad) {
  ModelConfig config;
  config.mutable_balance_loss()->set_coefficient(0);
  config.set_importance_coefficient(0.7);
  config.set_load_coefficient(0.3);
  RoutingResult decision = Decision();
  const at::Tensor load =
      at::tensor({0.9, 0.8, 0.3, 0.2, 0.9, 0.9, 1.0, 0.3, 0.7, 0.9, 0.2, 0.9}).view({4, 3});
  decision.load_TN = load.clone().set_requires_grad(true);
  Losses(config, {decision}, 2).Total().backward();
  constexpr double kStep = 1e-6;
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t e = 0; e < 3; ++e) {
      const auto shifted = [&](double probability, double of_load) {
        RoutingResult other = Decision();
        other.probs_TN = other.probs_TN.detach().clone();
        other.probs_TN[t][e] += probability;
        other.gate_TK = other.probs_TN.gather(1, other.expert_ids_TK);
        other.load_TN = load.clone();
        other.load_TN[t][e] += of_load;
        return Losses(config, {other}, 2).Total().item<double>();
      };
      EXPECT_NEAR(decision.probs_TN.grad()[t][e].item<double>(),
                  (shifted(kStep, 0) - shifted(-kStep, 0)) / (2 * kStep), 1e-8);
      EXPECT_NEAR(decision.load_TN.grad()[t][e].item<double>(),
                  (shifted(0, kStep) - shifted(0, -kStep)) / (2 * kStep), 1e-8);
    }
  }
}

TEST(RouterLossesTest, OneExpertVariesFromNothing) {
  RoutingResult decision;
  decision.probs_TN = at::zeros({2, 1}, at::kDouble) + 1.0;
  decision.logits_TN = decision.gate_TK = decision.probs_TN;
  decision.expert_ids_TK = at::zeros({2, 1}, at::kLong);
  ModelConfig config;
  config.set_importance_coefficient(1);
  config.set_load_coefficient(1);
  EXPECT_EQ(Losses(config, {decision}).importance.item<double>(), 0);
  EXPECT_EQ(Losses(config, {decision}).load.item<double>(), 0);
}

TEST(RouterLossesTest, WithoutSparseLayersAllIsZero) {
  EXPECT_EQ(Losses({}, {}).Total().item<double>(), 0);
}

}  // namespace
}  // namespace hypermoe
