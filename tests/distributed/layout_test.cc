// The same global batch gives the same loss and gradients however the ranks are arranged, compared
// with one rank alone.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "model/config_values.h"
#include "parallel/gradient_norm.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

// Smallest lead of a chosen expert over the next one, over all tokens of step 3: rounding must not
// change a choice.
double RoutingMargin(const RunConfig& config) {
  Trainer trainer(config, OneRankMesh(), TinyRows(config));
  Randomize(trainer);
  const at::NoGradGuard no_grad;
  ForwardMode mode;
  mode.training = true;
  mode.key = trainer.StepKey(3);
  const TrainingRows rows(TinyTokens(), MakeRowFormat(config.data(), config.model()).value(),
                          config.train().batch_size(), config.runtime().seed());
  double margin = 1;
  for (const RoutingResult& layer :
       trainer.model().Forward(rows.Rows(3, 0, config.train().batch_size()), mode).routing) {
    const at::Tensor sorted_TN = std::get<0>(layer.probs_TN.sort(1, true));
    for (int64_t r = 0; r < config.model().top_k(); ++r) {
      const at::Tensor lead_T = sorted_TN.select(1, r) - sorted_TN.select(1, r + 1);
      margin = std::min(margin, lead_T.min().item<double>());
    }
  }
  return margin;
}

// What must not change the numbers of a layout, nor be changed by it.
enum class Memory { kPlain, kRecomputeAndShard };

struct LayoutCase {
  const char* name;
  ModelConfig::Kind kind;
  int num_experts;
  RuntimeConfig::Dtype dtype;
  double tolerance;
  HyperConfig::Execution execution = HyperConfig::source;
  bool limited = false;  // capacity per row
  Memory memory = Memory::kPlain;
  bool noisy_top_2 = false;  // with importance and load losses
  ModelConfig::Family family = ModelConfig::gpt2;
};

LayoutCase Switch(const char* name, ModelConfig::Kind kind, int num_experts,
                  HyperConfig::Execution execution, bool limited) {
  return {name,        kind,
          num_experts, RuntimeConfig::float64,
          1e-12,       execution,
          limited,     Memory::kRecomputeAndShard,
          false,       ModelConfig::switch_transformers};
}

LayoutCase Switch32(const char* name, HyperConfig::Execution execution) {
  return {name,  ModelConfig::hyper, 6,     RuntimeConfig::float32,          1e-5, execution,
          false, Memory::kPlain,     false, ModelConfig::switch_transformers};
}

class LayoutTest : public testing::TestWithParam<LayoutCase> {
 protected:
  RunConfig Config() const {
    RunConfig config =
        TinyConfigOf(GetParam().family, GetParam().kind, GetParam().num_experts, GetParam().dtype);
    config.mutable_hyper()->set_execution(GetParam().execution);
    if (GetParam().limited) LimitCapacity(&config);
    if (HasEncoder(config.model()) && config.model().kind() != ModelConfig::dense) {
      config.mutable_model()->set_router_bias(true);
      config.mutable_model()->set_router_jitter_in_place(GetParam().limited);
    }
    if (GetParam().noisy_top_2) {
      ModelConfig& model = *config.mutable_model();
      model.set_router(ModelConfig::noisy_topk);
      model.set_top_k(2);
      model.set_renormalize(GetParam().limited);
      model.set_importance_coefficient(0.02);
      model.set_load_coefficient(0.03);
    }
    if (GetParam().memory == Memory::kRecomputeAndShard) {
      config.mutable_train()->set_recompute(TrainConfig::blocks);
      config.mutable_optimizer()->set_zero1(true);
    }
    return config;
  }
};

TEST_P(LayoutTest, GradientsDoNotDependOnTheMesh) {
  RunConfig config = Config();
  if (config.model().kind() != ModelConfig::dense) {
    ASSERT_GT(RoutingMargin(config), 1e-5);
  }
  for (const int micro_batches : {1, 2, 4}) {
    config.mutable_train()->set_micro_batches(micro_batches);
    const Outcome reference = Compute(config, OneRankMesh());
    EXPECT_EQ(reference.dropped_LN.sum().item<int64_t>() > 0, GetParam().limited);
    for (const int degree : Degrees()) {
      ExpectEqual(
          Compute(config, ProcessMesh::Create(World(), degree)), reference, GetParam().tolerance,
          "degree " + std::to_string(degree) + ", micro-batches " + std::to_string(micro_batches));
    }
  }
}

TEST_P(LayoutTest, WithScopeRowNeitherOnMicroBatches) {
  RunConfig config = Config();
  BalanceLossConfig& balance = *config.mutable_model()->mutable_balance_loss();
  balance.set_scope(BalanceLossConfig::row);
  if (GetParam().family == ModelConfig::switch_transformers) {
    balance.set_scope(BalanceLossConfig::stack_row);
    balance.set_dropped_count_as_first(true);
  }
  const Outcome reference = Compute(config, OneRankMesh());
  for (const int micro_batches : {1, 2, 4}) {
    config.mutable_train()->set_micro_batches(micro_batches);
    for (const int degree : Degrees()) {
      ExpectEqual(
          Compute(config, ProcessMesh::Create(World(), degree)), reference, GetParam().tolerance,
          "degree " + std::to_string(degree) + ", micro-batches " + std::to_string(micro_batches));
    }
  }
}

// Fewer rows than ranks, so that some ranks have none in every micro-batch.
TEST_P(LayoutTest, RanksWithoutRows) {
  RunConfig config = Config();
  config.mutable_train()->set_batch_size(3);
  config.mutable_train()->set_micro_batches(2);
  const Outcome reference = Compute(config, OneRankMesh());
  for (const int degree : Degrees()) {
    ExpectEqual(Compute(config, ProcessMesh::Create(World(), degree)), reference,
                GetParam().tolerance, "degree " + std::to_string(degree));
  }
}

TEST_P(LayoutTest, TwentyStepsStayTogether) {
  RunConfig config = Config();
  config.mutable_train()->set_micro_batches(2);
  const double tolerance = GetParam().dtype == RuntimeConfig::float64 ? 1e-9 : 1e-4;
  for (const int degree : Degrees()) {
    Trainer alone(config, OneRankMesh(), TinyRows(config));
    Trainer together(config, ProcessMesh::Create(World(), degree), TinyRows(config));
    double first = 0, last = 0;
    for (int64_t step = 0; step < 20; ++step) {
      const double expected = alone.TrainStep(step).loss, actual = together.TrainStep(step).loss;
      ASSERT_NEAR(actual, expected, tolerance) << "degree " << degree << ", step " << step;
      (step == 0 ? first : last) = expected;
    }
    EXPECT_LT(last, first) << "nothing was learned, so nothing was compared";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, LayoutTest,
    testing::Values(LayoutCase{"dense64", ModelConfig::dense, 1, RuntimeConfig::float64, 1e-12,
                               HyperConfig::source, false, Memory::kRecomputeAndShard},
                    LayoutCase{"moe64", ModelConfig::moe, 4, RuntimeConfig::float64, 1e-12,
                               HyperConfig::source, true},
                    LayoutCase{"moe_share64", ModelConfig::moe_share, 4, RuntimeConfig::float64,
                               1e-12, HyperConfig::source, true, Memory::kRecomputeAndShard},
                    LayoutCase{"adapter64", ModelConfig::adapter, 4, RuntimeConfig::float64, 1e-12,
                               HyperConfig::source, false, Memory::kRecomputeAndShard},
                    LayoutCase{"hyper64", ModelConfig::hyper, 4, RuntimeConfig::float64, 1e-12},
                    LayoutCase{"hyper6experts64", ModelConfig::hyper, 6, RuntimeConfig::float64,
                               1e-12, HyperConfig::source, true, Memory::kRecomputeAndShard},
                    LayoutCase{"hyper_owner64", ModelConfig::hyper, 6, RuntimeConfig::float64,
                               1e-12, HyperConfig::owner, true, Memory::kRecomputeAndShard},
                    LayoutCase{"hyper32", ModelConfig::hyper, 6, RuntimeConfig::float32, 1e-5},
                    LayoutCase{"hyper_owner32", ModelConfig::hyper, 6, RuntimeConfig::float32, 1e-5,
                               HyperConfig::owner},
                    LayoutCase{"moe_noisy_top2", ModelConfig::moe, 6, RuntimeConfig::float64, 1e-12,
                               HyperConfig::source, true, Memory::kRecomputeAndShard, true},
                    LayoutCase{"hyper_noisy_top2", ModelConfig::hyper, 6, RuntimeConfig::float64,
                               1e-12, HyperConfig::source, false, Memory::kPlain, true},
                    LayoutCase{"hyper_noisy_top2_owner", ModelConfig::hyper, 6,
                               RuntimeConfig::float32, 1e-5, HyperConfig::owner, true,
                               Memory::kRecomputeAndShard, true},
                    Switch("switch_dense64", ModelConfig::dense, 1, HyperConfig::source, false),
                    Switch("switch_share64", ModelConfig::moe_share, 6, HyperConfig::source, true),
                    Switch("switch_hyper64", ModelConfig::hyper, 6, HyperConfig::source, true),
                    Switch("switch_owner64", ModelConfig::hyper, 6, HyperConfig::owner, true),
                    Switch32("switch_hyper32", HyperConfig::source),
                    Switch32("switch_owner32", HyperConfig::owner)),
    [](const auto& info) { return info.param.name; });

// Errors that the field has shipped, planted into a right result: the comparison must see each.
TEST(PlantedErrorTest, IsFound) {
  const RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::float64);
  const Outcome reference = Compute(config, OneRankMesh());
  const auto differs = [&](const Outcome& outcome) {
    return LargestError(outcome.gradients, reference.gradients) > 1e-6 ||
           RelativeError(outcome.gradient_norm, reference.gradient_norm) > 1e-6;
  };
  for (const int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    Trainer trainer(config, mesh, TinyRows(config));
    Randomize(trainer);
    trainer.ComputeGradients(3);
    Outcome right;
    right.gradients = Gradients(trainer);
    right.gradient_norm =
        GlobalGradientNorm(trainer.buffers(), trainer.buckets(), *mesh.world).item<double>();
    EXPECT_FALSE(differs(right)) << "degree " << degree;
    const FlatBuffer& experts = trainer.buffers()[static_cast<size_t>(ParameterGroup::kExpert)];

    if (World()->size() > 1) {
      // The mean over local tokens instead of global ones makes a sum over ranks world-size times
      // too large.
      Outcome local_mean = right;
      for (auto& [name, gradient] : local_mean.gradients) gradient = gradient * World()->size();
      EXPECT_TRUE(differs(local_mean)) << "degree " << degree;
    }
    if (degree < World()->size()) {
      // The clip sums the squares of expert shards over the world: each counts once per replica.
      at::Tensor squares = experts.gradients().pow(2).sum();
      const double once = squares.item<double>();
      mesh.expert->AllReduceSum(squares);
      const double true_experts = squares.item<double>();
      squares.fill_(once);
      World()->AllReduceSum(squares);
      Outcome counted_twice = right;
      counted_twice.gradient_norm = std::sqrt(right.gradient_norm * right.gradient_norm -
                                              true_experts + squares.item<double>());
      EXPECT_TRUE(differs(counted_twice)) << "degree " << degree;
    }
    if (degree > 1) {
      // Expert gradients are summed over the world, and so over ranks that hold other experts.
      World()->AllReduceSum(experts.gradients());
      Outcome mixed = right;
      mixed.gradients = Gradients(trainer);
      EXPECT_TRUE(differs(mixed)) << "degree " << degree;
    }
  }
}

}  // namespace
}  // namespace hypermoe
