// HyperExperts: one generation a step against the literal equations, and what they are at the
// start.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "model/hyper_network.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

// Hypernetwork, expert and layer embeddings are used in all layers by all tokens of the world: each
// tensor's gradient is the sum over the world, measured against its own size.
TEST(HyperGradientTest, IsTheSumOverTheWorld) {
  for (const auto family : {ModelConfig::gpt2, ModelConfig::switch_transformers}) {
    RunConfig config = TinyConfigOf(family, ModelConfig::hyper, 4, RuntimeConfig::float64);
    config.mutable_model()->set_dropout(0);
    const Outcome reference = Compute(config, OneRankMesh());
    for (const int degree : Degrees()) {
      const Outcome outcome = Compute(config, ProcessMesh::Create(World(), degree));
      for (const auto& [name, gradient] : outcome.gradients) {
        if (name.rfind("hypermoe.", 0) != 0) continue;
        const at::Tensor& expected = reference.gradients.at(name);
        const double scale = std::max(expected.abs().max().item<double>(), 1e-12);
        EXPECT_LE((gradient - expected).abs().max().item<double>() / scale, 1e-9)
            << name << ", degree " << degree;
      }
    }
  }
}

// The literal equations, token by token, against one generation a step.
TEST(HyperExecutionTest, PerTokenEqualsSourceAndOwner) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float64);
  config.mutable_train()->set_batch_size(3);
  for (const int micro_batches : {1, 3}) {
    // With three micro-batches, tokens are dropped too, and blocks recomputed.
    if (micro_batches == 3) {
      LimitCapacity(&config);
      config.mutable_train()->set_recompute(TrainConfig::blocks);
    }
    config.mutable_train()->set_micro_batches(micro_batches);
    for (const int degree : Degrees()) {
      const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
      config.mutable_hyper()->set_execution(HyperConfig::source);
      const Outcome source = Compute(config, mesh);
      config.mutable_hyper()->set_execution(HyperConfig::owner);
      const Outcome owner = Compute(config, mesh);
      config.mutable_hyper()->set_execution(HyperConfig::per_token);
      const Outcome per_token = Compute(config, mesh);
      EXPECT_EQ(per_token.dropped_LN.sum().item<int64_t>() > 0, micro_batches == 3);
      ExpectEqual(owner, per_token, 1e-12, "owner, degree " + std::to_string(degree));
      ExpectEqual(source, per_token, 1e-12, "degree " + std::to_string(degree));
      EXPECT_EQ(source.tokens_LN.min().item<int64_t>(), 0)
          << "every expert has tokens: choose another seed";
    }
  }
}

// W_U starts at zero, so the HyperExperts add nothing yet, not even rounding.
TEST(ZeroUTest, HyperStartsAsThePlainMixture) {
  for (const auto& [family, up] :
       {std::pair(ModelConfig::gpt2, "hypermoe.generator.model.up.weight"),
        std::pair(ModelConfig::switch_transformers, "hypermoe.generator.encoder.up.weight")}) {
    RunConfig with_config = TinyConfigOf(family, ModelConfig::hyper, 6, RuntimeConfig::float32);
    with_config.mutable_hyper()->set_execution(HyperConfig::source);
    const RunConfig without_config =
        TinyConfigOf(family, ModelConfig::moe, 6, RuntimeConfig::float32);
    for (const int degree : Degrees()) {
      const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
      Trainer hyper(with_config, mesh, TinyRows(with_config)),
          moe(without_config, mesh, TinyRows(without_config));
      const StepResult a = hyper.ComputeGradients(0), b = moe.ComputeGradients(0);
      EXPECT_EQ(a.loss, b.loss);
      EXPECT_EQ(a.balance_loss, b.balance_loss);
      const NamedTensors with = Gradients(hyper), without = Gradients(moe);
      for (const auto& [name, gradient] : without)
        EXPECT_TRUE(with.at(name).equal(gradient)) << name;
      // It learns from the first step on.
      EXPECT_GT(with.at(up).abs().max().item<double>(), 0);
    }
  }
}

// One expert is a dense feed-forward sub-layer, also where most ranks hold no expert.
TEST(OneExpertTest, IsTheDenseModel) {
  RunConfig dense_config = TinyConfig(ModelConfig::dense, 1, RuntimeConfig::float64);
  RunConfig moe_config = TinyConfig(ModelConfig::moe, 1, RuntimeConfig::float64);
  moe_config.mutable_model()->mutable_balance_loss()->set_coefficient(0);
  moe_config.mutable_model()->set_router_z_coefficient(0);
  for (const int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    Trainer dense(dense_config, mesh, TinyRows(dense_config)),
        moe(moe_config, mesh, TinyRows(moe_config));
    Randomize(dense);
    Randomize(moe);
    const auto dense_name = [](std::string name) {
      const std::string expert = "experts.expert_0.";
      const size_t at = name.find(expert);
      return at == std::string::npos ? name : name.erase(at, expert.size());
    };
    const NamedTensors dense_values = Values(dense);
    for (const FlatBuffer& buffer : moe.buffers()) {
      for (const Parameter* parameter : buffer.parameters()) {
        for (const NamedTensor& view : GlobalViews(*parameter, parameter->value)) {
          const auto found = dense_values.find(dense_name(view.name));
          if (found != dense_values.end()) view.tensor.copy_(found->second);
        }
      }
    }
    EXPECT_LE(RelativeError(moe.ComputeGradients(1).loss, dense.ComputeGradients(1).loss), 1e-13);
    const NamedTensors expected = Gradients(dense);
    NamedTensors actual;
    for (const auto& [name, gradient] : Gradients(moe)) {
      if (name.find("w_gate") == std::string::npos) actual[dense_name(name)] = gradient;
    }
    EXPECT_LE(LargestError(actual, expected), 1e-12) << "degree " << degree;
  }
}

// One generation a step, however many micro-batches; one for all of evaluation until parameters
// change.
TEST(HyperGenerationTest, HappensOncePerStepAndIsCachedInEvaluation) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::float64);
  config.mutable_train()->set_micro_batches(4);
  Trainer trainer(config, ProcessMesh::Create(World(), World()->size()), TinyRows(config));
  const ValidationWindows windows({TinyTokens(500)[0].tokens}, config.model().sequence_length());
  trainer.TrainStep(0);
  trainer.TrainStep(1);
  EXPECT_EQ(trainer.model().hyper_network()->generations(), 2);
  const EvaluatedLosses loss = trainer.Evaluate(windows, 0).value();
  EXPECT_EQ(trainer.Evaluate(windows, 0), loss);
  EXPECT_EQ(trainer.model().hyper_network()->generations(), 3);
  trainer.TrainStep(2);
  EXPECT_EQ(trainer.model().hyper_network()->generations(), 4);
  EXPECT_NE(trainer.Evaluate(windows, 0), loss);
}

// With two choices of four experts there are 6 selections, generated once; with three of twelve
// 220, of which each pass generates those that occur.
TEST(HyperGenerationTest, OfSeveralChoicesHappensOnceIfThereAreFewSelections) {
  for (const auto& [experts, top_k, generations] : {std::array{4, 2, 2}, {12, 3, 0}}) {
    RunConfig config = TinyConfig(ModelConfig::hyper, experts, RuntimeConfig::float64);
    config.mutable_train()->set_micro_batches(4);
    config.mutable_model()->set_top_k(top_k);
    config.mutable_hyper()->set_execution(HyperConfig::source);
    Trainer trainer(config, ProcessMesh::Create(World(), World()->size()), TinyRows(config));
    trainer.TrainStep(0);
    trainer.TrainStep(1);
    EXPECT_EQ(trainer.model().hyper_network()->generations(), generations);
  }
}

// Shared experts and adapters start at zero too, and learn from the first step on.
TEST(SideNetworkTest, StartsAsThePlainMixture) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  Trainer moe(TinyConfig(ModelConfig::moe, 6, RuntimeConfig::float32), mesh,
              TinyRows(TinyConfig(ModelConfig::moe, 6, RuntimeConfig::float32)));
  const double loss = moe.ComputeGradients(0).loss;
  for (const auto& [kind, last] :
       {std::pair(ModelConfig::moe_share, "h.2.mlp.shared_expert.c_proj.weight"),
        std::pair(ModelConfig::adapter, "h.2.mlp.adapter.up.weight")}) {
    Trainer other(TinyConfig(kind, 6, RuntimeConfig::float32), mesh,
                  TinyRows(TinyConfig(kind, 6, RuntimeConfig::float32)));
    EXPECT_EQ(other.ComputeGradients(0).loss, loss);
    EXPECT_GT(Gradients(other).at(last).abs().max().item<double>(), 0) << last;
  }
}

}  // namespace
}  // namespace hypermoe
