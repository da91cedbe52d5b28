// What saves memory or is limited by it: recomputation, capacity groups, bfloat16.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <utility>

#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

int64_t AllToAllBytes(const ProcessMesh& mesh) {
  return mesh.expert->traffic(Collective::kAllToAll).bytes;
}

// Recomputation changes no bit and sends no byte more.
TEST(RecomputeTest, ChangesNeitherBitsNorTraffic) {
  constexpr auto kGpt2 = ModelConfig::gpt2, kSwitch = ModelConfig::switch_transformers;
  for (const auto& [family, kind] : {std::pair(kGpt2, ModelConfig::dense),
                                     {kGpt2, ModelConfig::moe},
                                     {kGpt2, ModelConfig::hyper},
                                     {kGpt2, ModelConfig::adapter},
                                     {kSwitch, ModelConfig::dense},
                                     {kSwitch, ModelConfig::hyper}}) {
    for (const auto execution : {HyperConfig::source, HyperConfig::owner}) {
      if (execution == HyperConfig::owner && kind != ModelConfig::hyper) continue;
      RunConfig config = TinyConfigOf(family, kind, 6, RuntimeConfig::float32);
      config.mutable_hyper()->set_execution(execution);
      // Without dropout attention has a faster form where it has no gradient.
      if (execution == HyperConfig::owner) config.mutable_model()->set_dropout(0);
      config.mutable_train()->set_micro_batches(2);
      if (kind != ModelConfig::dense) LimitCapacity(&config);
      for (const int degree : Degrees()) {
        const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
        config.mutable_train()->set_recompute(TrainConfig::nothing);
        const Outcome kept = Compute(config, mesh);
        const int64_t bytes = AllToAllBytes(mesh);
        config.mutable_train()->set_recompute(TrainConfig::blocks);
        const Outcome recomputed = Compute(config, mesh);
        EXPECT_EQ(recomputed.loss, kept.loss);
        EXPECT_EQ(recomputed.gradient_norm, kept.gradient_norm);
        for (const auto& [name, gradient] : kept.gradients) {
          EXPECT_TRUE(recomputed.gradients.at(name).equal(gradient))
              << name << ", degree " << degree;
        }
        EXPECT_EQ(AllToAllBytes(mesh), 2 * bytes);
        EXPECT_EQ(bytes > 0, degree > 1 && kind != ModelConfig::dense);
      }
    }
  }
}

// Groups of several rows stay whole at every layout, also where some ranks then have no rows.
TEST(CapacityTest, GroupsAreTheSameAtEveryLayout) {
  for (const int group_rows : {0, 2, 5}) {
    for (const int micro_batches : {1, 3}) {
      RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float64);
      CapacityConfig& capacity = *config.mutable_model()->mutable_training_capacity();
      capacity.set_mode(CapacityConfig::factor_per_group);
      capacity.set_factor(0.75);
      capacity.set_group_rows(group_rows);
      config.mutable_train()->set_micro_batches(micro_batches);
      const Outcome reference = Compute(config, OneRankMesh());
      EXPECT_GT(reference.dropped_LN.sum().item<int64_t>(), 0);
      for (const int degree : Degrees()) {
        ExpectEqual(Compute(config, ProcessMesh::Create(World(), degree)), reference, 1e-12,
                    std::to_string(group_rows) + " rows a group, degree " + std::to_string(degree));
      }
    }
  }
}

// Evaluation has a limit of its own, and training's is none of its business.
TEST(CapacityTest, EvaluationHasItsOwnLimit) {
  const ValidationWindows windows({TinyTokens(500)[0].tokens}, 8);
  const auto loss = [&](const RunConfig& config, const ProcessMesh& mesh) {
    Trainer trainer(config, mesh, TinyRows(config));
    Randomize(trainer);
    return trainer.Evaluate(windows, 0)->loss;
  };
  RunConfig config = TinyConfig(ModelConfig::moe, 6, RuntimeConfig::float64);
  const double unlimited = loss(config, OneRankMesh());
  LimitCapacity(&config);
  EXPECT_EQ(loss(config, OneRankMesh()), unlimited);
  *config.mutable_model()->mutable_evaluation_capacity() = config.model().training_capacity();
  const double limited = loss(config, OneRankMesh());
  EXPECT_GT(RelativeError(limited, unlimited), 1e-6);
  config.mutable_model()->mutable_evaluation_capacity()->set_mode(CapacityConfig::factor_per_group);
  config.mutable_model()->mutable_evaluation_capacity()->set_factor(0.5);
  config.mutable_model()->mutable_evaluation_capacity()->set_group_rows(3);
  const double grouped = loss(config, OneRankMesh());
  EXPECT_GT(RelativeError(grouped, unlimited), 1e-6);
  for (const int degree : Degrees()) {
    EXPECT_LE(RelativeError(loss(config, ProcessMesh::Create(World(), degree)), grouped), 1e-12);
  }
}

// Products and activations have 8 bits of precision; sums over micro-batches and ranks have more.
TEST(Bfloat16Test, IsFloat32UpToTheRoundingOfActivations) {
  struct Case {
    HyperConfig::Execution execution;
    int num_experts, top_k;
    bool options;
    ModelConfig::Family family = ModelConfig::gpt2;
  };
  for (const auto& [execution, num_experts, top_k, options, family] :
       {Case{HyperConfig::source, 4, 1, false},
        {HyperConfig::owner, 4, 1, false},
        {HyperConfig::owner, 4, 2, true},
        {HyperConfig::source, 12, 3, true},
        {HyperConfig::bilinear, 4, 2, true},
        {HyperConfig::source, 4, 1, false, ModelConfig::switch_transformers},
        {HyperConfig::owner, 4, 2, true, ModelConfig::switch_transformers}}) {
    RunConfig config =
        TinyConfigOf(family, ModelConfig::hyper, num_experts, RuntimeConfig::float32);
    config.mutable_hyper()->set_execution(execution);
    config.mutable_model()->set_top_k(top_k);
    if (options) {
      LimitCapacity(&config);
      config.mutable_hyper()->set_gen_bias(true);
      config.mutable_hyper()->set_scale(HyperConfig::gate);
      config.mutable_hyper()->set_on_dropped(HyperConfig::skip);
    }
    const Outcome precise = Compute(config, OneRankMesh());
    config.mutable_runtime()->set_dtype(RuntimeConfig::bfloat16);
    for (const int micro_batches : {1, 3}) {
      config.mutable_train()->set_micro_batches(micro_batches);
      for (const int degree : Degrees()) {
        const Outcome rounded = Compute(config, ProcessMesh::Create(World(), degree));
        EXPECT_LE(RelativeError(rounded.loss, precise.loss), 0.01);
        EXPECT_GT(RelativeError(rounded.loss, precise.loss), 1e-7) << "nothing was rounded";
        EXPECT_LE(RelativeError(rounded.gradient_norm, precise.gradient_norm), 0.05);
        double difference = 0, total = 0;
        for (const auto& [name, gradient] : rounded.gradients) {
          ASSERT_EQ(gradient.scalar_type(), at::kFloat) << name;
          const at::Tensor& expected = precise.gradients.at(name);
          difference += (gradient - expected).square().sum().item<double>();
          total += expected.square().sum().item<double>();
        }
        EXPECT_LE(std::sqrt(difference / total), 0.1) << "degree " << degree;
      }
    }
  }
}

// Rows of an odd width, of which a rank may get none or one; ranks without rows of their own.
TEST(Bfloat16Test, OddWidthsAndRanksWithoutRows) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::bfloat16);
  config.mutable_hyper()->set_execution(HyperConfig::owner);
  config.mutable_model()->set_hidden_size(15);
  config.mutable_model()->set_num_heads(1);
  config.mutable_train()->set_recompute(TrainConfig::blocks);
  for (const int batch_size : {1, 3}) {
    config.mutable_train()->set_batch_size(batch_size);
    const Outcome alone = Compute(config, OneRankMesh());
    for (const int degree : Degrees()) {
      const Outcome outcome = Compute(config, ProcessMesh::Create(World(), degree));
      EXPECT_LE(RelativeError(outcome.loss, alone.loss), 5e-3) << "degree " << degree;
      EXPECT_LE(RelativeError(outcome.gradient_norm, alone.gradient_norm), 0.05);
    }
  }
}

// The gate travels beside rows of half its width without losing a bit, and so does its gradient.
TEST(Bfloat16Test, OwnerAndSourceDifferByRoundingOnly) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::bfloat16);
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  const Outcome source = Compute(config, mesh);
  config.mutable_hyper()->set_execution(HyperConfig::owner);
  const Outcome owner = Compute(config, mesh);
  EXPECT_LE(RelativeError(owner.loss, source.loss), 2e-3);
  EXPECT_LE(RelativeError(owner.gradient_norm, source.gradient_norm), 0.02);
}

TEST(Bfloat16Test, LearnsAsFloat32Does) {
  double losses[2];
  for (const bool rounded : {false, true}) {
    RunConfig config = TinyConfig(ModelConfig::hyper, 4,
                                  rounded ? RuntimeConfig::bfloat16 : RuntimeConfig::float32);
    Trainer trainer(config, ProcessMesh::Create(World(), World()->size()), TinyRows(config));
    const double first = trainer.TrainStep(0).loss;
    for (int64_t step = 1; step < 20; ++step) losses[rounded] = trainer.TrainStep(step).loss;
    EXPECT_LT(losses[rounded], first - 0.1);
  }
  EXPECT_NEAR(losses[0], losses[1], 0.05);
}

}  // namespace
}  // namespace hypermoe
