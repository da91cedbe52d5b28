// The same global batch gives the same loss and gradients however the ranks are arranged, compared
// with one rank alone.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "parallel/gradient_reducer.h"
#include "tests/support/mpi_test.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

// What one layout computed for step 3.
struct Outcome {
  double loss = 0, balance_loss = 0, gradient_norm = 0;
  NamedTensors gradients;
  at::Tensor tokens_LN;
};

Outcome Compute(const RunConfig& config, const ProcessMesh& mesh) {
  Trainer trainer(config, mesh, TinyTokens());
  Randomize(trainer);
  const StepResult result = trainer.ComputeGradients(3);
  Outcome outcome;
  outcome.loss = result.loss;
  outcome.balance_loss = result.balance_loss;
  outcome.gradient_norm = GlobalGradientNorm(trainer.buffers(), *mesh.expert);
  outcome.gradients = Gradients(trainer);
  outcome.tokens_LN = result.tokens_LN;
  return outcome;
}

std::vector<int> Degrees() {
  std::vector<int> degrees;
  for (int degree = 1; degree <= World()->size(); ++degree) {
    if (World()->size() % degree == 0) degrees.push_back(degree);
  }
  return degrees;
}

double RelativeError(double a, double b) { return std::abs(a - b) / std::max(std::abs(b), 1e-3); }

void ExpectEqual(const Outcome& actual, const Outcome& reference, double tolerance,
                 const std::string& what) {
  EXPECT_LE(RelativeError(actual.loss, reference.loss), tolerance) << what;
  EXPECT_LE(RelativeError(actual.balance_loss, reference.balance_loss), tolerance) << what;
  EXPECT_LE(RelativeError(actual.gradient_norm, reference.gradient_norm), tolerance) << what;
  EXPECT_LE(LargestError(actual.gradients, reference.gradients), tolerance) << what;
  EXPECT_TRUE(actual.tokens_LN.equal(reference.tokens_LN)) << what;
}

// Smallest lead of a chosen expert over the second, over all tokens of step 3: rounding must not
// change a choice.
double RoutingMargin(const RunConfig& config) {
  Trainer trainer(config, OneRankMesh(), TinyTokens());
  Randomize(trainer);
  const at::NoGradGuard no_grad;
  ForwardMode mode;
  mode.training = true;
  mode.key = trainer.StepKey(3);
  const TrainingRows rows(TinyTokens(), config.model().sequence_length(),
                          config.train().batch_size(), config.runtime().seed());
  double margin = 1;
  for (const RoutingResult& layer :
       trainer.model().Forward(rows.Rows(3, 0, config.train().batch_size()), mode).routing) {
    const at::Tensor sorted_TN = std::get<0>(layer.probs_TN.sort(1, true));
    margin =
        std::min(margin, (sorted_TN.select(1, 0) - sorted_TN.select(1, 1)).min().item<double>());
  }
  return margin;
}

struct LayoutCase {
  const char* name;
  ModelConfig::Kind kind;
  int num_experts;
  RuntimeConfig::Dtype dtype;
  double tolerance;
};

class LayoutTest : public testing::TestWithParam<LayoutCase> {
 protected:
  RunConfig Config() const {
    return TinyConfig(GetParam().kind, GetParam().num_experts, GetParam().dtype);
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
    for (const int degree : Degrees()) {
      ExpectEqual(
          Compute(config, ProcessMesh::Create(World(), degree)), reference, GetParam().tolerance,
          "degree " + std::to_string(degree) + ", micro-batches " + std::to_string(micro_batches));
    }
  }
}

TEST_P(LayoutTest, WithScopeRowNeitherOnMicroBatches) {
  RunConfig config = Config();
  config.mutable_model()->mutable_balance_loss()->set_scope(BalanceLossConfig::row);
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
    Trainer alone(config, OneRankMesh(), TinyTokens());
    Trainer together(config, ProcessMesh::Create(World(), degree), TinyTokens());
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
    testing::Values(LayoutCase{"dense64", ModelConfig::dense, 1, RuntimeConfig::float64, 1e-12},
                    LayoutCase{"moe64", ModelConfig::moe, 4, RuntimeConfig::float64, 1e-12},
                    LayoutCase{"hyper64", ModelConfig::hyper, 4, RuntimeConfig::float64, 1e-12},
                    LayoutCase{"hyper6experts64", ModelConfig::hyper, 6, RuntimeConfig::float64,
                               1e-12},
                    LayoutCase{"hyper32", ModelConfig::hyper, 6, RuntimeConfig::float32, 1e-5}),
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
    Trainer trainer(config, mesh, TinyTokens());
    Randomize(trainer);
    trainer.ComputeGradients(3);
    Outcome right;
    right.gradients = Gradients(trainer);
    right.gradient_norm = GlobalGradientNorm(trainer.buffers(), *mesh.expert);
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

// Hypernetwork, expert and layer embeddings are used in all layers by all tokens of the world: each
// tensor's gradient is the sum over the world, measured against its own size.
TEST(HyperGradientTest, IsTheSumOverTheWorld) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 4, RuntimeConfig::float64);
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

// The literal equations, token by token, against one generation a step.
TEST(HyperExecutionTest, PerTokenEqualsSource) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float64);
  config.mutable_train()->set_batch_size(3);
  for (const int micro_batches : {1, 3}) {
    config.mutable_train()->set_micro_batches(micro_batches);
    for (const int degree : Degrees()) {
      const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
      config.mutable_hyper()->set_execution(HyperConfig::source);
      const Outcome source = Compute(config, mesh);
      config.mutable_hyper()->set_execution(HyperConfig::per_token);
      const Outcome per_token = Compute(config, mesh);
      ExpectEqual(source, per_token, 1e-12, "degree " + std::to_string(degree));
      EXPECT_EQ(source.tokens_LN.min().item<int64_t>(), 0)
          << "every expert has tokens: choose another seed";
    }
  }
}

// W_U starts at zero, so the HyperExperts add nothing yet, not even rounding.
TEST(ZeroUTest, HyperStartsAsThePlainMixture) {
  for (const int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    Trainer hyper(TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float32), mesh, TinyTokens());
    Trainer moe(TinyConfig(ModelConfig::moe, 6, RuntimeConfig::float32), mesh, TinyTokens());
    const StepResult a = hyper.ComputeGradients(0), b = moe.ComputeGradients(0);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.balance_loss, b.balance_loss);
    const NamedTensors with = Gradients(hyper), without = Gradients(moe);
    for (const auto& [name, gradient] : without) EXPECT_TRUE(with.at(name).equal(gradient)) << name;
    // It learns from the first step on.
    EXPECT_GT(with.at("hypermoe.generator.model.up.weight").abs().max().item<double>(), 0);
  }
}

// One expert is a dense feed-forward sub-layer, also where most ranks hold no expert.
TEST(OneExpertTest, IsTheDenseModel) {
  RunConfig dense_config = TinyConfig(ModelConfig::dense, 1, RuntimeConfig::float64);
  RunConfig moe_config = TinyConfig(ModelConfig::moe, 1, RuntimeConfig::float64);
  moe_config.mutable_model()->mutable_balance_loss()->set_coefficient(0);
  for (const int degree : Degrees()) {
    const ProcessMesh mesh = ProcessMesh::Create(World(), degree);
    Trainer dense(dense_config, mesh, TinyTokens()), moe(moe_config, mesh, TinyTokens());
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
  Trainer trainer(config, ProcessMesh::Create(World(), World()->size()), TinyTokens());
  const ValidationWindows windows(TinyTokens(500), config.model().sequence_length());
  trainer.TrainStep(0);
  trainer.TrainStep(1);
  EXPECT_EQ(trainer.model().hyper_network()->generations(), 2);
  const double loss = trainer.Evaluate(windows, 0);
  EXPECT_EQ(trainer.Evaluate(windows, 0), loss);
  EXPECT_EQ(trainer.model().hyper_network()->generations(), 3);
  trainer.TrainStep(2);
  EXPECT_EQ(trainer.model().hyper_network()->generations(), 4);
  EXPECT_NE(trainer.Evaluate(windows, 0), loss);
}

}  // namespace
}  // namespace hypermoe
