#include "model/router.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/balance_loss.h"

namespace hypermoe {
namespace {

// A router over 4 experts whose weights are all equal: every probability is 1/4.
Router UndecidedRouter(std::vector<Parameter>* parameters) {
  ParameterFactory factory(1, at::kDouble, parameters);
  Router router("router.", 3, 4, 1.0, factory);
  GlobalViews(parameters->back(), parameters->back().value)[0].tensor.fill_(0.5);
  return router;
}

TEST(RouterTest, TiesGoToTheLowerExpert) {
  std::vector<Parameter> parameters;
  const RoutingResult result =
      UndecidedRouter(&parameters).Forward(at::ones({6, 3}, at::kDouble), {});
  EXPECT_EQ(result.expert_ids_T.max().item<int64_t>(), 0);
  EXPECT_DOUBLE_EQ(result.gate_T.min().item<double>(), 0.25);
}

TEST(RouterTest, NoTokens) {
  std::vector<Parameter> parameters;
  const RoutingResult result =
      UndecidedRouter(&parameters).Forward(at::zeros({0, 3}, at::kDouble), {});
  EXPECT_EQ(result.expert_ids_T.numel(), 0);
  EXPECT_TRUE(result.gate_T.requires_grad());
}

TEST(BalanceLossTest, IsOneLayerTimesCoefficientWhenProbabilitiesAreEven) {
  std::vector<Parameter> parameters;
  const Router router = UndecidedRouter(&parameters);
  const std::vector<RoutingResult> routing(2, router.Forward(at::ones({6, 3}, at::kDouble), {}));
  const auto world = NewSelfCommunicator("world");
  BalanceLossConfig config;
  config.set_coefficient(0.5);
  for (const auto scope : {BalanceLossConfig::micro_batch, BalanceLossConfig::row}) {
    config.set_scope(scope);
    // N * sum_e f_e / N = 1 for each of the two layers; two rows of three tokens.
    const BalanceLoss loss = ComputeBalanceLoss(routing, 3, config, {1, 2}, *world);
    EXPECT_NEAR(loss.share.item<double>(), 0.5 * 2, 1e-15);
    EXPECT_EQ(loss.tokens_LN[1][0].item<int64_t>(), 6);
  }
}

}  // namespace
}  // namespace hypermoe
