#include "kernels/route_tokens.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

struct Case {
  int64_t tokens, experts, choices;
  bool renormalize;
  bool given = false;  // the experts are chosen already
};

// The definition, in float64; `ids` undefined: the likeliest.
TokenRoutes Plain(const at::Tensor& logits, const Case& c, const at::Tensor& ids) {
  const at::Tensor x = logits.to(at::kDouble), probs = at::softmax(x, 1);
  const at::Tensor chosen =
      ids.defined()
          ? ids
          : std::get<1>(probs.detach().sort(/*stable=*/true, 1, true)).narrow(1, 0, c.choices);
  at::Tensor gate = at::gather(probs, 1, chosen);
  if (c.renormalize) gate = gate / gate.sum(1, true);
  return {probs, chosen, gate, at::logsumexp(x, 1)};
}

class RouteTokensTest : public testing::TestWithParam<Case> {
 protected:
  // Some permutation of the experts for every token.
  static at::Tensor Given() {
    const Case& c = GetParam();
    if (!c.given) return {};
    return Random({c.tokens, c.experts}, "given").argsort(int64_t{1}).narrow(1, 0, c.choices);
  }
  static TokenRoutes Run(const at::Tensor& logits) {
    const Case& c = GetParam();
    const at::Tensor given = Given();
    return RouteTokens(logits, c.choices, c.renormalize,
                       given.defined() ? given.to(logits.device()) : given);
  }
  static std::vector<at::Tensor> Differentiable(const TokenRoutes& routes) {
    return {routes.probs_TN, routes.gate_TK, routes.log_sum_T};
  }
};

TEST_P(RouteTokensTest, EqualsTheDefinitionWithItsGradients) {
  const Case& c = GetParam();
  for (const at::Device device : DevicesHere()) {
    for (const auto& [dtype, tolerance] : {std::pair(at::kDouble, 1e-12), {at::kFloat, 1e-5}}) {
      const auto logits = [&, type = dtype] {
        return (Random({c.tokens, c.experts}, "logits", type) * 3).set_requires_grad(true);
      };
      // With the gradient of each output alone, and of all.
      for (int which = 0; which <= 3; ++which) {
        const at::Tensor in = logits(), plain_in = logits();
        const TokenRoutes routes = Run(in.to(device));
        ASSERT_EQ(routes.expert_ids_TK.sizes(), at::IntArrayRef({c.tokens, c.choices}));
        EXPECT_FALSE(routes.expert_ids_TK.requires_grad());
        const at::Tensor ids = routes.expert_ids_TK.cpu();
        // In float32 neighbours may be as likely as each other.
        const TokenRoutes plain = Plain(plain_in, c, dtype == at::kDouble ? Given() : ids);
        EXPECT_TRUE(ids.equal(plain.expert_ids_TK)) << device;
        const std::vector<at::Tensor> actual = Differentiable(routes),
                                      expected = Differentiable(plain);
        at::Tensor total, plain_total;
        for (int i = 0; i < 3; ++i) {
          ASSERT_EQ(actual[i].scalar_type(), dtype);
          ASSERT_EQ(actual[i].sizes(), expected[i].sizes());
          if (c.tokens > 0) {
            EXPECT_LE(RelativeError(actual[i].detach().cpu(), expected[i].detach()), tolerance)
                << device << ", output " << i;
          }
          if (which < 3 && i != which) continue;
          const at::Tensor grad = Random(actual[i].sizes(), "grad" + std::to_string(i), dtype);
          const at::Tensor sum = (actual[i] * grad.to(device)).sum(),
                           plain_sum = (expected[i] * grad.to(at::kDouble)).sum();
          total = total.defined() ? total + sum : sum;
          plain_total = plain_total.defined() ? plain_total + plain_sum : plain_sum;
        }
        total.backward();
        plain_total.backward();
        ASSERT_EQ(in.grad().scalar_type(), dtype);
        if (c.tokens == 0) continue;
        // Where gates are always 1 the gradient is 0 but for rounding.
        const double error =
            (in.grad().to(at::kDouble) - plain_in.grad()).abs().max().item<double>();
        EXPECT_LE(error, tolerance * std::max(1.0, plain_in.grad().abs().max().item<double>()))
            << device << ", gradient of " << which;
      }
    }
  }
}

TEST_P(RouteTokensTest, SameBitsForAnyNumberOfThreads) {
  const Case& c = GetParam();
  std::vector<std::vector<at::Tensor>> results;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    const at::Tensor logits = Leaf({c.tokens, c.experts}, "logits", at::kFloat);
    const TokenRoutes routes = Run(logits);
    (routes.gate_TK.sum() + routes.probs_TN.pow(2).sum() + routes.log_sum_T.sum()).backward();
    results.push_back(
        {routes.probs_TN, routes.expert_ids_TK, routes.gate_TK, routes.log_sum_T, logits.grad()});
  }
  for (const auto& result : results) {
    for (size_t i = 0; i < result.size(); ++i) EXPECT_TRUE(result[i].equal(results[0][i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, RouteTokensTest,
    testing::Values(Case{0, 4, 2, true}, Case{5, 1, 1, false}, Case{5, 1, 1, true},
                    Case{7, 8, 1, false}, Case{7, 8, 1, true}, Case{33, 8, 2, false},
                    Case{33, 8, 2, true}, Case{1001, 5, 3, true}, Case{9, 6, 6, true},
                    Case{9, 6, 6, false}, Case{501, 8, 2, true, true}, Case{17, 32, 2, false},
                    Case{17, 33, 3, true}, Case{13, 64, 64, true}, Case{13, 64, 2, false, true},
                    Case{11, 65, 2, true}, Case{300, 130, 3, false}, Case{11, 1000, 40, true},
                    Case{3, 100, 100, true, true}));

TEST(RouteTokensGradientTest, MatchesDifferences) {
  for (const at::Device device : DevicesHere()) {
    for (const bool renormalize : {false, true}) {
      const auto all = [&](std::vector<at::Tensor> in) {
        const TokenRoutes routes = RouteTokens(in[0].to(device), 2, renormalize);
        return at::cat({routes.probs_TN.flatten(), routes.gate_TK.flatten(), routes.log_sum_T})
            .cpu();
      };
      EXPECT_TRUE(GradientsMatchDifferences(all, {Leaf({5, 6}, "logits")})) << device;
    }
  }
}

TEST(RouteTokensChoiceTest, BestFirstAndTiesToTheLowerExpert) {
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const at::Tensor logits = at::tensor({1.0, 3.0, 2.0, 3.0, /**/ 0.5, 0.5, -1.0, 0.5,
                                        /**/ minus_infinity, 0.0, minus_infinity, minus_infinity})
                                .view({3, 4});
  for (const at::Device device : DevicesHere()) {
    EXPECT_TRUE(RouteTokens(logits.to(device), 3, false)
                    .expert_ids_TK.cpu()
                    .equal(at::tensor({1L, 3L, 2L, 0L, 1L, 3L, 1L, 0L, 2L}).view({3, 3})));
    for (const int64_t experts : {4, 40, 100}) {
      EXPECT_TRUE(RouteTokens(at::zeros({2, experts}, logits.options().device(device)), 4, true)
                      .expert_ids_TK.cpu()
                      .equal(at::arange(4).expand({2, 4})))
          << device << ", " << experts;
    }
  }
}

// They show in the loss; ids must be ones that exist.
TEST(RouteTokensChoiceTest, WithoutProbabilitiesTheFirst) {
  for (const at::Device device : DevicesHere()) {
    for (const int64_t experts : {4, 40, 100}) {
      at::Tensor logits = at::zeros({2, experts}, at::kFloat);
      logits[0][2] = std::numeric_limits<float>::quiet_NaN();
      logits[1][3] = std::numeric_limits<float>::infinity();
      const TokenRoutes routes = RouteTokens(logits.to(device), 2, true);
      EXPECT_TRUE(routes.expert_ids_TK.cpu().equal(at::tensor({0L, 1L, 0L, 1L}).view({2, 2})));
      EXPECT_TRUE(routes.probs_TN.isnan().all().item<bool>());
      EXPECT_TRUE(routes.gate_TK.isnan().all().item<bool>());
    }
  }
}

TEST(RouteTokensChecksTest, RefusesWhatDoesNotFit) {
  const at::Tensor logits = Random({3, 4}, "logits"),
                   chosen = at::tensor({0L, 1L, 2L, 3L, 1L, 0L}).view({3, 2});
  EXPECT_NO_THROW(RouteTokens(logits, 2, false, chosen));
  EXPECT_THROW(RouteTokens(logits, 0, false), c10::Error);
  EXPECT_THROW(RouteTokens(logits, 5, false), c10::Error);
  EXPECT_THROW(RouteTokens(logits.flatten(), 1, false), c10::Error);
  EXPECT_THROW(RouteTokens(logits.to(at::kBFloat16), 1, false), c10::Error);
  EXPECT_THROW(RouteTokens(logits, 1, false, chosen), c10::Error);
  EXPECT_THROW(RouteTokens(logits, 2, false, chosen.to(at::kInt)), c10::Error);
  EXPECT_THROW(RouteTokens(logits, 2, false, chosen + 1), c10::Error);
  EXPECT_THROW(RouteTokens(logits, 2, false, chosen - 1), c10::Error);
}

}  // namespace
}  // namespace hypermoe
