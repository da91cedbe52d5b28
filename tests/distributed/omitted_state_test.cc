// A proof that comparing runs proves something: whatever part of a run's state a resume loses, the
// steps after it are seen to differ.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/adamw.h"
#include "runtime/checkpoint.h"
#include "tests/support/run_comparison.h"
#include "tests/support/tiny_run.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kStop = 8, kEnd = 12;

// A run after kStop steps, as a checkpoint holds it.
struct State {
  Trainer& trainer;
  CheckpointInfo& info;
  Trainer& fresh;  // of the same run, before its first step
};

struct Item {
  std::string name;
  std::function<void(State&)> lose;
};

using ParameterTest = std::function<bool(const Parameter&)>;

// Values as before the first step.
Item ValuesOf(const std::string& name, const ParameterTest& lost) {
  return {name, [lost](State& state) {
            for (size_t b = 0; b < state.trainer.buffers().size(); ++b) {
              const FlatBuffer& buffer = state.trainer.buffers()[b];
              for (size_t i = 0; i < buffer.parameters().size(); ++i) {
                const Parameter& parameter = *buffer.parameters()[i];
                if (lost(parameter))
                  parameter.value.copy_(state.fresh.buffers()[b].parameters()[i]->value);
              }
            }
          }};
}

Item MomentsOf(const std::string& name, size_t moment) {
  return {name, [moment](State& state) {
            Optimizer& optimizer = state.trainer.optimizer();
            for (size_t b = 0; b < state.trainer.buffers().size(); ++b)
              optimizer.SetState(b, moment, 0, at::zeros_like(optimizer.State(b, moment)));
          }};
}

// Experts of one layer, of each rank, moved among each other.
Item Experts(const std::string& name, const std::function<at::Tensor(const at::Tensor&)>& moved) {
  return {name, [moved](State& state) {
            for (const FlatBuffer& buffer : state.trainer.buffers()) {
              for (const Parameter* parameter : buffer.parameters()) {
                const bool chosen = parameter->group == ParameterGroup::kExpert &&
                                    parameter->name.starts_with("h.0.");
                if (chosen) parameter->value.copy_(moved(parameter->value.clone()));
              }
            }
          }};
}

std::vector<Item> Items() {
  const auto in_group = [](ParameterGroup group) {
    return [group](const Parameter& parameter) { return parameter.group == group; };
  };
  const auto named = [](const std::string& part) {
    return [part](const Parameter& parameter) {
      return parameter.name.find(part) != std::string::npos;
    };
  };
  return {
      {"nothing", [](State&) {}},
      ValuesOf("dense parameters", in_group(ParameterGroup::kDense)),
      ValuesOf("experts", in_group(ParameterGroup::kExpert)),
      ValuesOf("the hypernetwork", in_group(ParameterGroup::kHyper)),
      ValuesOf("token embeddings", named("wte")),
      ValuesOf("expert embeddings", named("expert_embedding")),
      ValuesOf("a router", named("h.2.mlp.router")),
      ValuesOf("one bias", named("h.1.ln_2.bias")),
      MomentsOf("first moments", AdamW::kFirst),
      MomentsOf("second moments", AdamW::kSecond),
      {"the count of updates", [](State& state) { state.trainer.optimizer().set_steps(0); }},
      {"the step", [](State& state) { state.info.step = kStop - 1; }},
      {"the seed", [](State& state) { state.info.config.mutable_runtime()->set_seed(6); }},
      Experts("which expert is which",
              [](const at::Tensor& experts) { return experts.roll(1, 0); }),
      Experts("experts but the first",
              [](const at::Tensor& experts) { return experts.slice(0, 0, 1).expand_as(experts); }),
  };
}

// One run that nobody stopped and one that was, for all tests.
class OmittedStateTest : public testing::TestWithParam<Item> {
 protected:
  class Runs : public TinyRuns {
   public:
    Runs() {
      EXPECT_TRUE(Pretrain(Of("whole"), mesh_).ok());
      PretrainOptions stopped = Of("stopped");
      stopped.stop_at_step = kStop;
      EXPECT_EQ(ExitCodeOf(Pretrain(stopped, mesh_)), ExitCode::kStopped);
      World()->Barrier();
    }

    PretrainOptions Of(const std::string& run) const {
      PretrainOptions options = Options(run);
      options.config.mutable_checkpoint()->set_every(0);
      return options;
    }

    // Goes on, to the end, from a checkpoint of "stopped" that has lost `item`: what of it is then
    // not as in "whole". The checkpoint itself is not compared.
    RunComparison ResumeWithout(const Item& item) const {
      PretrainOptions options = Of(item.name);
      const CheckpointInfo info = SaveWithout(item, options.run_dir);
      if (World()->rank() == 0)
        fs::copy(folder_ + "/stopped/metrics.jsonl", options.run_dir + "/metrics.jsonl");
      World()->Barrier();
      options.config = info.config;
      const absl::Status status = Pretrain(options, mesh_);
      EXPECT_TRUE(status.ok()) << status;
      World()->Barrier();
      if (World()->rank() == 0) {
        char name[32];
        std::snprintf(name, sizeof(name), "step_%08d", static_cast<int>(info.step));
        EXPECT_GT(fs::remove_all(options.run_dir + "/checkpoints/" + name), 0u);
      }
      World()->Barrier();
      return CompareRuns(folder_ + "/whole", options.run_dir);
    }

   private:
    CheckpointInfo SaveWithout(const Item& item, const std::string& run_dir) const {
      const at::NoGradGuard no_grad;
      const RunConfig config = Of("stopped").config;
      const std::string checkpoint = ResolveCheckpoint(folder_ + "/stopped").value();
      CheckpointInfo info = ReadCheckpointInfo(checkpoint).value();
      Trainer trainer(config, mesh_, TinyRows(config)), fresh(config, mesh_, TinyRows(config));
      const absl::Status loaded =
          LoadCheckpoint(checkpoint, config.model().num_experts(), trainer.buffers(),
                         trainer.optimizer(), *mesh_.world);
      EXPECT_TRUE(loaded.ok()) << loaded;
      State state{trainer, info, fresh};
      item.lose(state);
      const absl::Status saved =
          SaveCheckpoint(run_dir, info, trainer.buffers(), trainer.optimizer(), mesh_);
      EXPECT_TRUE(saved.ok()) << saved;
      return info;
    }

    const ProcessMesh mesh_ = ProcessMesh::Create(World(), World()->size());
  };

  static void SetUpTestSuite() { runs_ = std::make_unique<Runs>(); }
  static void TearDownTestSuite() { runs_.reset(); }

  static std::unique_ptr<Runs> runs_;
};

std::unique_ptr<OmittedStateTest::Runs> OmittedStateTest::runs_;

INSTANTIATE_TEST_SUITE_P(, OmittedStateTest, testing::ValuesIn(Items()), [](const auto& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
});

TEST_P(OmittedStateTest, IsSeenInLaterStepsAndInTheLastCheckpoint) {
  const RunComparison compared = runs_->ResumeWithout(GetParam());
  EXPECT_EQ(compared.checkpoints, std::vector<int64_t>{kEnd});
  EXPECT_EQ(compared.lines, kEnd + kEnd / 3);
  int64_t lines = 0, parameters = 0;
  for (const std::string& difference : compared.differences) {
    lines += difference.find("metrics.jsonl") != std::string::npos;
    parameters += difference.find("step_00000012: ln_f.weight differs") != std::string::npos;
  }
  if (GetParam().name == "nothing") {
    EXPECT_EQ(compared.differences, std::vector<std::string>());
  } else {
    EXPECT_GE(lines, 1);
    EXPECT_EQ(parameters, 1);
  }
}

// One token over and over: a row is like any other.
class ConstantTokenFile : public TokenFile {
 public:
  int64_t num_tokens() const override { return 4000; }
  int64_t num_documents() const override { return 1; }
  void Read(int64_t, int64_t count, int64_t* ids) const override { std::fill_n(ids, count, 3); }
  absl::Status CheckIds(int64_t) const override { return absl::OkStatus(); }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  std::string fingerprint_ = "constant";
};

// What a run takes from the number of its step.
struct FromStep {
  std::string name;
  bool data = false, dropout = false, router_noise = false, learning_rate = false;
};

// Parameters after four steps numbered from `first` on.
NamedTensors TrainFrom(int64_t first, const FromStep& from_step, const ProcessMesh& mesh) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float32);
  if (!from_step.dropout) config.mutable_model()->set_dropout(0);
  if (!from_step.router_noise) config.mutable_model()->set_router_jitter(0);
  if (!from_step.learning_rate) {
    config.mutable_optimizer()->set_schedule(OptimizerConfig::constant);
    config.mutable_optimizer()->set_warmup_steps(0);
  }
  const TokenRange constant = {std::make_shared<ConstantTokenFile>(), 0, 4000};
  const auto rows = std::make_shared<TrainingRows>(
      from_step.data ? TinyTokens() : std::vector<WeightedTokens>{{constant, 1}},
      config.model().sequence_length(), config.train().batch_size(), config.runtime().seed());
  Trainer trainer(config, mesh, rows);
  Randomize(trainer);
  for (int64_t step = first; step < first + 4; ++step) trainer.TrainStep(step);
  return Values(trainer);
}

// The step that a run goes on from is its position in the data, its random numbers and its learning
// rate: each alone is seen if it is off by one, and there is nothing else.
TEST(OmittedStepTest, IsSeenByDataDropoutRouterNoiseAndLearningRateEach) {
  const ProcessMesh mesh = ProcessMesh::Create(World(), World()->size());
  for (const FromStep& from_step : {FromStep{"nothing"}, FromStep{.name = "data", .data = true},
                                    FromStep{.name = "dropout", .dropout = true},
                                    FromStep{.name = "router noise", .router_noise = true},
                                    FromStep{.name = "learning rate", .learning_rate = true}}) {
    const NamedTensors right = TrainFrom(7, from_step, mesh), off = TrainFrom(8, from_step, mesh);
    int64_t different = 0;
    for (const auto& [name, tensor] : right) different += !tensor.equal(off.at(name));
    EXPECT_EQ(different > 0, from_step.name != "nothing") << from_step.name;
  }
}

}  // namespace
}  // namespace hypermoe
