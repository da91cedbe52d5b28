// Growing a run, and starting one from another: the same at every layout, and runs that go on.
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "kernels/keyed_random.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/config_loader.h"
#include "runtime/evaluator.h"
#include "runtime/model_growth.h"
#include "runtime/pretrain.h"
#include "runtime/starting_config.h"
#include "runtime/token_file.h"
#include "tests/support/layouts.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

using testing::AllOf;
using testing::HasSubstr;

class GrowthRunTest : public testing::Test {
 protected:
  GrowthRunTest() {
    if (World()->rank() == 0) WriteTokens();
    World()->Barrier();
  }

  void WriteTokens() {
    auto writer = TokenFileWriter::Create(Path("tokens"), 257);
    ASSERT_TRUE(writer.ok()) << writer.status();
    std::vector<int32_t> ids;
    for (uint64_t i = 0; i < 3000; ++i)
      ids.push_back(static_cast<int32_t>(UniformAt({1, 2}, i) * 16));
    ASSERT_TRUE((*writer)->Append(ids).ok());
    ASSERT_TRUE((*writer)->EndDocument().ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  std::string Path(const std::string& name) const { return folder_ / name; }

  // The tiny model of 6 experts, for `steps` steps.
  PretrainOptions Options(const std::string& run, int64_t steps,
                          RuntimeConfig::Dtype dtype = RuntimeConfig::float64) const {
    PretrainOptions options;
    options.config = TinyConfig(ModelConfig::hyper, 6, dtype);
    options.config.mutable_data()->add_train()->set_prefix(Path("tokens"));
    options.config.mutable_train()->set_steps(steps);
    options.run_dir = Path(run);
    return options;
  }

  void Train(const PretrainOptions& options, ExitCode code = ExitCode::kOk) {
    const absl::Status status = Pretrain(options, ProcessMesh::Create(World(), World()->size()));
    ASSERT_EQ(ExitCodeOf(status), code) << status;
    World()->Barrier();
  }

  double Loss(const std::string& run) {
    const auto result = Evaluate({Path(run), Path("tokens"), ""}, World(), 0);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->loss : 0;
  }

  SharedFolder folder_;
};

// Every tensor of a run's newest checkpoint, moments included.
NamedTensors TensorsOf(const std::string& run) {
  NamedTensors tensors;
  const auto stored = OpenStoredModel(run);
  EXPECT_TRUE(stored.ok()) << stored.status();
  if (!stored.ok()) return tensors;
  for (const auto& source : {stored->model.tensors, stored->moments}) {
    for (const auto& [name, entry] : source->entries()) tensors[name] = source->Read(name)->clone();
  }
  return tensors;
}

void ExpectEqualBits(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(tensor.equal(b.at(name))) << name;
}

TEST_F(GrowthRunTest, ARunGrowsToTheSameRunAtEveryLayoutAndGoesOn) {
  PretrainOptions options = Options("source", 6);
  options.stop_at_step = 3;
  Train(options, ExitCode::kStopped);
  const double before = Loss("source");

  GrowthOptions growth;
  growth.from = Path("source");
  growth.changes = {"model.num_experts=12"};
  growth.jitter = 0;
  growth.output = Path("exact");
  const auto exact = GrowModel(growth, World());
  ASSERT_TRUE(exact.ok()) << exact.status();
  EXPECT_LE(exact->error, 1e-12 * exact->largest_logit);
  EXPECT_NEAR(exact->before.language_model, exact->after.language_model, 1e-10);
  // Tied clones leave the balance loss as it was, but there are more logits to sum up.
  EXPECT_NEAR(exact->before.balance, exact->after.balance, 1e-10);
  EXPECT_GT(exact->after.router_z, exact->before.router_z);
  World()->Barrier();
  EXPECT_NEAR(Loss("exact"), before, 1e-10);

  growth.jitter = kCloneJitter;
  NamedTensors first;
  for (const int degree : Degrees()) {
    growth.expert_parallel = degree;
    growth.output = Path("grown_" + std::to_string(degree));
    const auto report = GrowModel(growth, World());
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_NE(report->separated.language_model, report->after.language_model);
    World()->Barrier();
    const NamedTensors grown = TensorsOf(growth.output);
    if (first.empty()) first = grown;
    ExpectEqualBits(grown, first);
  }
  // By one rank alone.
  growth.expert_parallel = 0;
  growth.output = Path("alone_" + std::to_string(World()->rank()));
  ASSERT_TRUE(GrowModel(growth, NewSelfCommunicator("world")).ok());
  ExpectEqualBits(TensorsOf(growth.output), first);

  const NamedTensors source = TensorsOf(Path("source"));
  const std::string moment = "optimizer.first_moment.h.2.mlp.experts.expert_";
  EXPECT_TRUE(
      first.at(moment + "9.c_proj.weight").equal(source.at(moment + "3.c_proj.weight") / 2));
  // The grown run is one that has taken 3 of its 6 steps.
  PretrainOptions onwards;
  onwards.run_dir = Path("grown_1");
  const auto config = LoadConfig(onwards.run_dir + "/config.textproto", {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model().num_experts(), 12);
  onwards.config = *config;
  Train(onwards);
  EXPECT_TRUE(fs::exists(onwards.run_dir + "/checkpoints/step_00000006"));
}

// Files by name.
std::map<std::string, std::string> Files(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename().string()] = ReadFile(entry.path().string());
  return files;
}

// By all ranks at every degree and by each alone; the same files.
TEST_F(GrowthRunTest, AFolderGrowsToTheSameFolderAtEveryLayout) {
  struct Case {
    std::string from;
    std::vector<std::string> changes;
  };
  const Case cases[] = {
      {"gpt2_dense",
       {"model.kind=hyper", "model.num_experts=5", "model.renormalize=true",
        "hyper.bottleneck_dim=3", "hyper.hidden_dim=4"}},
      {"gpt2_hyper", {}},  // to twice as many
  };
  for (const Case& growing : cases) {
    GrowthOptions growth;
    growth.from = std::string(HYPERMOE_TEST_DATA) + "/" + growing.from;
    growth.changes = growing.changes;
    if (growing.from == "gpt2_hyper") {
      const auto stored = OpenStoredModel(growth.from);
      ASSERT_TRUE(stored.ok()) << stored.status();
      const int experts = stored->model.config.model().num_experts();
      growth.changes = {"model.num_experts=" + std::to_string(2 * experts)};
    }
    const std::string alone = Path(growing.from + "_alone_" + std::to_string(World()->rank()));
    growth.output = alone;
    const auto report = GrowModel(growth, NewSelfCommunicator("world"));
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->WithinTolerance());
    EXPECT_NEAR(report->before.language_model, report->after.language_model, 1e-5);
    for (const int degree : Degrees()) {
      growth.output = Path(growing.from + "_" + std::to_string(degree));
      growth.expert_parallel = degree;
      const auto together = GrowModel(growth, World());
      ASSERT_TRUE(together.ok()) << together.status();
      EXPECT_NEAR(together->after.language_model, report->after.language_model, 1e-6);
      World()->Barrier();
      EXPECT_EQ(Files(growth.output), Files(alone)) << growing.from << ", degree " << degree;
    }
    // What has been written computes what it was made from, but for the jitter.
    growth.from = alone;
    growth.changes = {};
    growth.expert_parallel = 0;
    growth.output = alone + "_again";
    const auto again = GrowModel(growth, NewSelfCommunicator("world"));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_NEAR(again->before.language_model, report->separated.language_model, 1e-5);
  }
}

TEST_F(GrowthRunTest, NothingIsWrittenThatDoesNotComputeTheSame) {
  Train(Options("source", 2));
  GrowthOptions growth;
  growth.from = Path("source");
  growth.output = Path("grown");
  growth.changes = {"model.num_experts=12", "hyper.init=off_small", "model.renormalize=true"};
  const auto refused = GrowModel(growth, World());
  EXPECT_EQ(ExitCodeOf(refused.status()), ExitCode::kConfig);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("model.renormalize"));
  growth.changes = {"model.num_experts=9"};
  EXPECT_EQ(ExitCodeOf(GrowModel(growth, World()).status()), ExitCode::kConfig);
  growth.changes = {"train.steps=9"};
  EXPECT_EQ(ExitCodeOf(GrowModel(growth, World()).status()), ExitCode::kUsage);
  growth.output = Path("source");
  growth.changes = {"model.num_experts=12"};
  EXPECT_EQ(ExitCodeOf(GrowModel(growth, World()).status()), ExitCode::kUsage);
  World()->Barrier();
  EXPECT_FALSE(fs::exists(Path("grown")));
}

// A run that starts from another has its loss, also with more experts; and it can be stopped.
TEST_F(GrowthRunTest, ARunStartsFromAnotherAndIsResumedWithoutIt) {
  Train(Options("source", 12));
  const double source = Loss("source");
  RunConfig given = Options("", 4).config;
  // What is not given comes from the source.
  given.clear_model();
  given.clear_hyper();
  given.mutable_model()->set_num_experts(12);
  given.mutable_model()->set_dropout(0);
  given.mutable_train()->set_init_from(Path("source"));
  given.mutable_optimizer()->set_learning_rate(1e-9);
  given.mutable_optimizer()->set_min_learning_rate(0);
  PretrainOptions whole = Options("whole", 4);
  const auto config = CompleteConfig(given, whole.run_dir);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model().hidden_size(), 16);
  EXPECT_EQ(config->model().sparse_layers_size(), 2);
  EXPECT_EQ(config->hyper().bottleneck_dim(), 4);
  whole.config = *config;
  Train(whole);
  // Nothing has been learned at that rate; the jitter is all that differs.
  EXPECT_NEAR(Loss("whole"), source, 1e-3);
  EXPECT_NE(Loss("whole"), source);

  PretrainOptions stopped = whole;
  stopped.run_dir = Path("stopped");
  stopped.stop_at_step = 2;
  Train(stopped, ExitCode::kStopped);
  if (World()->rank() == 0) fs::remove_all(Path("source"));
  World()->Barrier();
  const auto again = CompleteConfig(given, stopped.run_dir);
  ASSERT_TRUE(again.ok()) << again.status();
  stopped.config = *again;
  stopped.stop_at_step = 0;
  Train(stopped);
  ExpectEqualBits(TensorsOf(whole.run_dir), TensorsOf(stopped.run_dir));
  EXPECT_EQ(ExitCodeOf(CompleteConfig(given, Path("new")).status()), ExitCode::kIo);
}

// Rows and columns of second moments are not those of clones.
TEST_F(GrowthRunTest, ARunOfAdafactorGrowsOnlyWithoutItsState) {
  PretrainOptions options = Options("adafactor", 2);
  options.config.mutable_optimizer()->set_kind(OptimizerConfig::adafactor);
  Train(options);
  GrowthOptions growth;
  growth.from = Path("adafactor");
  growth.changes = {"model.num_experts=12"};
  growth.output = Path("grown");
  const auto refused = GrowModel(growth, World());
  EXPECT_EQ(ExitCodeOf(refused.status()), ExitCode::kConfig);
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("optimizer.kind adafactor"), HasSubstr("train.init_from")));
  EXPECT_FALSE(fs::exists(Path("grown")));
  // What it says to do works.
  RunConfig given;
  given.mutable_model()->set_num_experts(12);
  *given.mutable_data() = options.config.data();
  *given.mutable_optimizer() = options.config.optimizer();
  *given.mutable_runtime() = options.config.runtime();
  given.mutable_train()->set_init_from(Path("adafactor"));
  given.mutable_train()->set_steps(4);
  PretrainOptions larger = options;
  larger.run_dir = Path("larger");
  const auto config = CompleteConfig(given, larger.run_dir);
  ASSERT_TRUE(config.ok()) << config.status();
  larger.config = *config;
  Train(larger);
  EXPECT_NEAR(Loss("larger"), Loss("adafactor"), 0.5);
}

TEST_F(GrowthRunTest, AFrozenRunIsResumedBitForBit) {
  PretrainOptions whole = Options("whole", 4, RuntimeConfig::float32);
  for (const char* pattern : {"w?e.*", "h.0.*", "*.experts.*"})
    whole.config.mutable_train()->add_freeze(pattern);
  Train(whole);
  PretrainOptions stopped = whole;
  stopped.run_dir = Path("stopped");
  stopped.stop_at_step = 2;
  stopped.config.mutable_optimizer()->set_zero1(true);
  Train(stopped, ExitCode::kStopped);
  stopped.stop_at_step = 0;
  stopped.config.mutable_optimizer()->set_zero1(false);
  Train(stopped);
  const NamedTensors tensors = TensorsOf(whole.run_dir);
  ExpectEqualBits(tensors, TensorsOf(stopped.run_dir));
  EXPECT_EQ(tensors.count("wte.weight"), 1u);
  EXPECT_EQ(tensors.count("optimizer.first_moment.wte.weight"), 0u);
  EXPECT_EQ(tensors.count("optimizer.first_moment.ln_f.weight"), 1u);
  // It is a whole model.
  EXPECT_GT(Loss("whole"), 0);
}

}  // namespace
}  // namespace hypermoe
