// Condition weights: every execution at every layout against the literal equations on one rank, and
// what is computed and sent, once a step.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "model/hyper_network.h"
#include "tests/support/encoded_weights.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

RunConfig Config(ModelConfig::Family family, int num_experts,
                 RuntimeConfig::Dtype dtype = RuntimeConfig::float64) {
  RunConfig config = TinyConfigOf(family, ModelConfig::hyper, num_experts, dtype);
  EncodeWeights(&config);
  config.mutable_train()->set_batch_size(5);
  config.mutable_train()->set_micro_batches(2);
  config.mutable_hyper()->set_execution(HyperConfig::source);
  return config;
}

// `config` at a degree by each execution, the last ones recomputing blocks, against the literal
// equations on one rank.
void ExpectSame(RunConfig config, const std::vector<std::pair<int, HyperConfig::Execution>>& ways) {
  config.mutable_hyper()->set_execution(HyperConfig::per_token);
  const Outcome reference = Compute(config, OneRankMesh());
  for (const char* part : {"0.weight", "0.bias", "3.weight"}) {
    EXPECT_GT(reference.gradients.at(std::string("hypermoe.weight_encoder.") + part)
                  .abs()
                  .max()
                  .item<double>(),
              0);
  }
  for (const auto& [degree, execution] : ways) {
    config.mutable_hyper()->set_execution(execution);
    config.mutable_train()->set_recompute(degree == World()->size() ? TrainConfig::blocks
                                                                    : TrainConfig::nothing);
    ExpectEqual(Compute(config, ProcessMesh::Create(World(), degree)), reference, 1e-12,
                HyperConfig::Execution_Name(execution) + ", degree " + std::to_string(degree));
  }
}

// Three experts: on two ranks unequally many, on four one rank has none.
TEST(WeightsTest, ExecutionsEqualTheLiteralEquationsAtEveryLayout) {
  RunConfig config = Config(ModelConfig::gpt2, 3);
  config.mutable_hyper()->set_conv_grad_to_experts(true);
  std::vector<std::pair<int, HyperConfig::Execution>> ways = {
      {World()->size(), HyperConfig::bilinear}, {World()->size(), HyperConfig::owner}};
  for (const int degree : Degrees()) ways.emplace_back(degree, HyperConfig::source);
  ExpectSame(config, ways);
}

TEST(WeightsTest, WeighedByProbabilitiesToo) {
  RunConfig config = Config(ModelConfig::gpt2, 2);
  config.mutable_model()->set_top_k(2);
  config.mutable_hyper()->set_z(HyperConfig::one_minus_prob);
  config.mutable_hyper()->set_conv_act(HyperConfig::none);
  ExpectSame(config, {{World()->size(), HyperConfig::bilinear}});
}

TEST(WeightsTest, OfASwitchTransformerToo) {
  RunConfig config = Config(ModelConfig::switch_transformers, 2);
  config.mutable_hyper()->set_agg(HyperConfig::sum);
  LimitCapacity(&config);
  ExpectSame(config, {{World()->size(), HyperConfig::source}});
}

// What one kind of collective of the expert group has cost by an action: calls and bytes.
std::array<int64_t, 2> CostOf(Collective kind, const ProcessMesh& mesh,
                              const std::function<void()>& action) {
  const Traffic before = mesh.expert->traffic(kind);
  action();
  const Traffic after = mesh.expert->traffic(kind);
  return {after.calls - before.calls, after.bytes - before.bytes};
}

// Embeddings are computed and gathered once a step, however many micro-batches, and once for all of
// evaluation; HyperExperts start at zero.
TEST(WeightsTest, EmbeddingsAreGatheredOnceAStepAndStartAsThePlainMixture) {
  RunConfig config = Config(ModelConfig::gpt2, 3, RuntimeConfig::float32);
  RunConfig plain = config;
  plain.mutable_model()->set_kind(ModelConfig::moe);
  const int degree = World()->size();
  const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
  Trainer trainer(config, mesh, TinyRows(config));
  {
    Trainer moe(plain, mesh, TinyRows(plain));
    EXPECT_EQ(trainer.ComputeGradients(0).loss, moe.ComputeGradients(0).loss);
    const NamedTensors with = Gradients(trainer);
    for (const auto& [name, gradient] : Gradients(moe))
      EXPECT_TRUE(with.at(name).equal(gradient)) << name;
    EXPECT_GT(with.at("hypermoe.generator.model.up.weight").abs().max().item<double>(), 0);
  }
  // Padded to equal parts: what the first rank has of three experts, in float32, of every rank.
  const int64_t calls = degree > 1 ? 1 : 0, bytes = calls * degree * ((3 + degree - 1) / degree) *
                                                    128 * static_cast<int64_t>(sizeof(float));
  using Cost = std::array<int64_t, 2>;
  const auto step = [&](int64_t number) { return [&, number] { trainer.TrainStep(number); }; };
  EXPECT_EQ(CostOf(Collective::kAllGather, mesh, step(1)), (Cost{calls, bytes}));
  EXPECT_EQ(CostOf(Collective::kReduceScatter, mesh, step(2)), (Cost{calls, bytes}));
  EXPECT_EQ(trainer.model().hyper_network()->generations(), 3);
  const ValidationWindows windows({TinyTokens(200)[0].tokens}, config.model().sequence_length());
  EXPECT_EQ(CostOf(Collective::kAllGather, mesh,
                   [&] {
                     const EvaluatedLosses loss = trainer.Evaluate(windows, 0).value();
                     EXPECT_EQ(trainer.Evaluate(windows, 0), loss);
                   }),
            (Cost{calls, bytes}));
  EXPECT_EQ(CostOf(Collective::kAllGather, mesh, step(3)), (Cost{calls, bytes}));
}

}  // namespace
}  // namespace hypermoe
