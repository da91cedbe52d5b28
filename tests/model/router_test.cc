#include "model/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/keyed_random.h"

namespace hypermoe {
namespace {

ModelConfig FourExperts(int top_k, bool renormalize = false) {
  ModelConfig config;
  config.set_hidden_size(4);
  config.set_num_experts(4);
  config.set_top_k(top_k);
  config.set_renormalize(renormalize);
  return config;
}

// A router over 4 experts; its logits are its input where w_gate is the identity.
class TestedRouter {
 public:
  explicit TestedRouter(const ModelConfig& config, at::ScalarType dtype = at::kDouble)
      : factory_(1, dtype, &parameters_), router_("router.", config, factory_) {
    for (int64_t e = 0; e < 4; ++e) value(0)[e].zero_()[e] = 1;
  }
  at::Tensor value(size_t i) { return parameters_[i].value.detach(); }
  at::Tensor gradient(size_t i) { return parameters_[i].value.grad(); }
  size_t size() const { return parameters_.size(); }
  RoutingResult Forward(const at::Tensor& logits, const RouterNoise& noise = {},
                        const at::Tensor& chosen_TK = {}) {
    return router_.Forward(logits, noise, chosen_TK);
  }

 private:
  std::vector<Parameter> parameters_;
  ParameterFactory factory_;
  Router router_;
};

at::Tensor Logits() {
  return at::tensor({1.0, 3.0, 2.0, 0.0, /**/ 0.5, 0.5, -1.0, 0.5}).view({2, 4});
}

TEST(RouterTest, BestFirstAndTiesToTheLowerExpert) {
  EXPECT_TRUE(TestedRouter(FourExperts(3))
                  .Forward(Logits())
                  .expert_ids_TK.equal(at::tensor({1L, 2L, 0L, 0L, 1L, 3L}).view({2, 3})));
  EXPECT_TRUE(TestedRouter(FourExperts(1))
                  .Forward(Logits())
                  .expert_ids_TK.equal(at::tensor({1L, 0L}).view({2, 1})));
  EXPECT_TRUE(TestedRouter(FourExperts(4))
                  .Forward(at::ones({1, 4}, at::kDouble))
                  .expert_ids_TK.equal(at::arange(4).view({1, 4})));
}

TEST(RouterTest, GatesAreProbabilitiesOrSharesOfTheirSum) {
  const at::Tensor probs = at::softmax(Logits(), 1);
  const RoutingResult plain = TestedRouter(FourExperts(2)).Forward(Logits());
  EXPECT_DOUBLE_EQ(plain.gate_TK[0][1].item<double>(), probs[0][2].item<double>());
  const RoutingResult shares = TestedRouter(FourExperts(2, true)).Forward(Logits());
  EXPECT_DOUBLE_EQ(shares.gate_TK[0][0].item<double>(), 1 / (1 + std::exp(-1.0)));
  EXPECT_NEAR(shares.gate_TK.sum(1).sub(1).abs().max().item<double>(), 0, 1e-15);
}

// With a bias in the second place of the parameters.
TEST(RouterTest, ABiasIsAddedToTheLogits) {
  ModelConfig config = FourExperts(1);
  config.set_family(ModelConfig::switch_transformers);
  config.set_router_bias(true);
  TestedRouter router(config);
  ASSERT_EQ(router.size(), 2u);
  EXPECT_EQ(router.value(1).abs().sum().item<double>(), 0);
  const at::Tensor bias = at::tensor({0.0, -3.0, 0.5, 4.0}, at::kDouble);
  router.value(1).copy_(bias);
  const RoutingResult result = router.Forward(Logits());
  EXPECT_TRUE(result.logits_TN.equal(Logits() + bias));
  EXPECT_TRUE(result.expert_ids_TK.equal(at::tensor({3L, 3L}).view({2, 1})));
  result.probs_TN.select(1, 0).sum().backward();
  const at::Tensor probs = at::softmax(Logits() + bias, 1), first_T1 = probs.narrow(1, 0, 1);
  const at::Tensor one = at::tensor({1.0, 0.0, 0.0, 0.0}, at::kDouble);
  EXPECT_LE((router.gradient(1) - (first_T1 * (one - probs)).sum(0)).abs().max().item<double>(),
            1e-15);
  EXPECT_EQ(router.Forward(at::zeros({0, 4}, at::kDouble)).probs_TN.size(0), 0);
}

// Hugging Face chooses by probabilities in the precision of activations.
TEST(RouterTest, AChoiceByRoundedProbabilities) {
  ModelConfig config = FourExperts(1);
  for (const int top_k : {1, 2}) {
    config.set_top_k(top_k);
    config.set_router_choice_rounded(true);
    TestedRouter rounded(config, at::kFloat);
    config.set_router_choice_rounded(false);
    TestedRouter plain(config, at::kFloat);
    at::Tensor logits = at::empty({500, 4}, at::kFloat);
    FillNormal(logits, RandomKey{5, 0}, 0.01);  // so that many are equal
    const at::Tensor x = logits.to(at::kBFloat16);
    const at::Tensor probs = plain.Forward(x).probs_TN.to(at::kBFloat16).to(at::kFloat);
    // Of equal ones the first: numbers count down by less than they differ.
    const at::Tensor order = probs * 1024 - at::arange(4, at::kFloat) * 1e-4;
    const at::Tensor expected = std::get<1>(order.topk(top_k, 1));
    const RoutingResult result = rounded.Forward(x);
    EXPECT_TRUE(result.expert_ids_TK.equal(expected));
    EXPECT_FALSE(plain.Forward(x).expert_ids_TK.equal(expected));
    EXPECT_TRUE(result.gate_TK.equal(result.probs_TN.gather(1, expected)));
    // Nothing is rounded in float32, and another pass follows what it is given.
    EXPECT_TRUE(rounded.Forward(logits).expert_ids_TK.equal(plain.Forward(logits).expert_ids_TK));
    EXPECT_TRUE(rounded.Forward(x, {}, expected.fliplr()).expert_ids_TK.equal(expected.fliplr()));
  }
}

TEST(RouterTest, NoTokens) {
  const RoutingResult result = TestedRouter(FourExperts(2)).Forward(at::zeros({0, 4}, at::kDouble));
  EXPECT_EQ(result.expert_ids_TK.sizes(), at::IntArrayRef({0, 2}));
  EXPECT_TRUE(result.gate_TK.requires_grad());
}

RouterNoise GateNoise(uint64_t step, int64_t rows) {
  RouterNoise noise;
  noise.gate_noise = true;
  noise.key = RandomKey{7, step};
  noise.row_ids_B = at::arange(rows, at::kLong);
  return noise;
}

ModelConfig Noisy(int top_k) {
  ModelConfig config = FourExperts(top_k);
  config.set_router(ModelConfig::noisy_topk);
  return config;
}

TEST(NoisyRouterTest, WithoutNoiseItIsTheSwitchRouter) {
  TestedRouter noisy(Noisy(2));
  EXPECT_EQ(noisy.size(), 2u);
  const RoutingResult result = noisy.Forward(Logits()),
                      plain = TestedRouter(FourExperts(2)).Forward(Logits());
  EXPECT_TRUE(result.probs_TN.equal(plain.probs_TN));
  EXPECT_FALSE(result.load_TN.defined());
  // A Switch router has no gate noise to add.
  EXPECT_TRUE(TestedRouter(FourExperts(2))
                  .Forward(Logits(), GateNoise(0, 2))
                  .logits_TN.equal(plain.logits_TN));
}

// Over many draws the noise has mean 0 and the deviation softplus(x w_noise) + 0.01.
TEST(NoisyRouterTest, NoiseHasTheDeviationOfItsFormula) {
  constexpr int64_t kRows = 20000;
  TestedRouter router(Noisy(1));
  router.value(1).fill_(0.25);  // softplus(4 * 0.25)
  const at::Tensor logits =
      router.Forward(at::ones({kRows, 4}, at::kDouble), GateNoise(3, kRows)).logits_TN;
  const at::Tensor noise = logits - 1.0;
  EXPECT_NEAR(noise.mean().item<double>(), 0, 0.02);
  EXPECT_NEAR(noise.std().item<double>(), std::log(1 + std::exp(1.0)) + 0.01, 0.02);
}

// Drawing the noise of one expert anew, the others' held, it is chosen as often as load says.
TEST(NoisyRouterTest, LoadIsTheShareOfDrawsThatChooseTheExpert) {
  constexpr int64_t kDraws = 40000;
  for (const int top_k : {1, 2, 3}) {
    TestedRouter router(Noisy(top_k));
    router.value(1).fill_(0.1);
    const at::Tensor x = Logits().narrow(0, 0, 1);
    const RoutingResult result = router.Forward(x, GateNoise(5, 1));
    const at::Tensor noisy = result.logits_TN.detach()[0];
    const double deviation = std::log(1 + std::exp(0.6)) + 0.01;
    const at::Tensor draws = at::empty({kDraws}, at::kDouble);
    for (int64_t e = 0; e < 4; ++e) {
      FillNormal(draws, RandomKey{static_cast<uint64_t>(e), 1}, deviation);
      const at::Tensor redrawn = draws + x[0][e].item<double>();
      at::Tensor better = at::zeros({kDraws}, at::kLong);
      for (int64_t other = 0; other < 4; ++other) {
        if (other != e) better = better + redrawn.lt(noisy[other].item<double>());
      }
      const double chosen = better.lt(top_k).to(at::kDouble).mean().item<double>();
      EXPECT_NEAR(result.load_TN[0][e].item<double>(), chosen, 0.01) << top_k << ", expert " << e;
    }
  }
}

TEST(NoisyRouterTest, AllExpertsAreChosenWhateverTheNoise) {
  EXPECT_FALSE(TestedRouter(Noisy(4)).Forward(Logits(), GateNoise(0, 2)).load_TN.defined());
}

}  // namespace
}  // namespace hypermoe
