// A step with a bad number on any rank is skipped on all of them, and changes nothing.
#include <ATen/ops/from_blob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/number_guard.h"
#include "runtime/pretrain.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_token_file.h"
#include "tests/support/tiny_training.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr char kRouter[] = "w_gate", kExpert[] = "c_fc.weight", kHyper[] = "hypermoe.",
               kEmbedding[] = "wte.weight", kLoss[] = "ln_f.bias";

struct Injection {
  std::string tensor;  // a part of its name; kLoss: the loss by way of it
  double value;
  int rank;
};

// The first parameter with that in its name that this rank holds elements of, experts before
// others.
const Parameter& Find(Trainer& trainer, const std::string& part) {
  const Parameter* found = nullptr;
  for (const Parameter& parameter : trainer.model().parameters()) {
    if (parameter.name.find(part) == std::string::npos || parameter.value.numel() == 0) continue;
    if (found == nullptr ||
        (found->group != ParameterGroup::kExpert && parameter.group == ParameterGroup::kExpert)) {
      found = &parameter;
    }
  }
  EXPECT_NE(found, nullptr) << part;
  return *found;
}

// Spoils the first micro-batch of every step from now on: a gradient after forward, which backward
// then adds to; or the loss, by a parameter that is bad while the micro-batch lasts.
void Inject(const Injection& injection, Trainer& trainer) {
  if (World()->rank() != injection.rank) return;
  const Parameter& parameter = Find(trainer, injection.tensor);
  const bool loss = injection.tensor == kLoss;
  const at::Tensor element =
      (loss ? parameter.value : parameter.value.grad()).detach().view({-1}).select(0, 2);
  trainer.set_phase_observer([=, value = injection.value, kept = at::Tensor(), first = true](
                                 const std::string& phase, double, double) mutable {
    if (phase == "optimizer") first = true;
    if (!first) return;
    if (loss && phase == "data") {
      kept = element.clone();
      element.fill_(value);
    }
    if (loss && phase == "backward") element.copy_(kept);
    if (!loss && phase == "forward") element.fill_(value);
    if (phase == "backward") first = false;
  });
}

void Stop(Trainer& trainer) { trainer.set_phase_observer({}); }

// All that a step may change. Collective with ZeRO-1.
struct State {
  NamedTensors tensors;
  int64_t updates;

  explicit State(Trainer& trainer)
      : tensors(Values(trainer)), updates(trainer.optimizer().steps()) {
    tensors.merge(OptimizerState(trainer));
  }
  bool operator==(const State& other) const {
    bool equal = updates == other.updates && tensors.size() == other.tensors.size();
    for (const auto& [name, tensor] : tensors) equal &= tensor.equal(other.tensors.at(name));
    return equal;
  }
};

bool OnAllRanks(bool here) {
  int64_t missing = here ? 0 : 1;
  World()->AllReduceSum(at::from_blob(&missing, {1}, at::kLong));
  return missing == 0;
}

RunConfig Config(bool zero1) {
  RunConfig config = TinyConfig(ModelConfig::hyper, 6, RuntimeConfig::float32);
  config.mutable_train()->set_micro_batches(2);
  config.mutable_train()->set_steps(400);
  config.mutable_optimizer()->set_zero1(zero1);
  return config;
}

// Experts on several ranks, with copies, where the world allows both.
ProcessMesh Mesh() { return ProcessMesh::Create(World(), World()->size() == 4 ? 2 : 1); }

// Whether the next step, with the injection, is skipped on all ranks and changes nothing on any.
bool SkipsOnAllRanks(const Injection& injection, int64_t step, Trainer& trainer) {
  Inject(injection, trainer);
  const State before(trainer);
  const StepResult result = trainer.TrainStep(step);
  Stop(trainer);
  const bool unchanged = State(trainer) == before;
  const bool counted = result.skipped && result.skipped_steps == step + 1 - before.updates;
  return OnAllRanks(counted && unchanged);
}

TEST(SkippedStepsTest, ChangeNothingWhereverTheBadNumberIs) {
  for (const bool zero1 : {false, true}) {
    const ProcessMesh mesh = Mesh();
    // The second one never sees a bad step.
    Trainer trainer(Config(zero1), mesh, TinyRows(Config(zero1))),
        plain(Config(zero1), mesh, TinyRows(Config(zero1)));
    Randomize(trainer);
    Randomize(plain);
    int64_t step = 0, good = 0;
    const auto take_good_step = [&] {
      const StepResult result = trainer.TrainStep(step), expected = plain.TrainStep(step);
      EXPECT_FALSE(result.skipped);
      EXPECT_EQ(result.loss, expected.loss);
      EXPECT_EQ(result.gradient_norm, expected.gradient_norm);
      EXPECT_EQ(trainer.optimizer().steps(), ++good);
      ++step;
    };
    take_good_step();
    for (const char* tensor : {kRouter, kExpert, kHyper, kEmbedding, kLoss}) {
      for (const double value : {kNaN, kInfinity}) {
        for (int rank = 0; rank < World()->size(); ++rank) {
          EXPECT_TRUE(SkipsOnAllRanks({tensor, value, rank}, step, trainer))
              << tensor << " " << value << " on rank " << rank << ", zero1 " << zero1;
          ++step;
        }
      }
      take_good_step();
    }
    EXPECT_TRUE(OnAllRanks(State(trainer) == State(plain)));
  }
}

// What the test above has to see.
TEST(SkippedStepsTest, AreNotAlikeByOtherRules) {
  for (const bool zero1 : {false, true}) {
    for (const SkipRule rule : {SkipRule::kAlone, SkipRule::kNever}) {
      if (rule == SkipRule::kAlone && World()->size() == 1) continue;  // the same as together
      Trainer trainer(Config(zero1), Mesh(), TinyRows(Config(zero1)));
      trainer.set_skip_rule(rule);
      EXPECT_FALSE(SkipsOnAllRanks({kRouter, kNaN, 0}, 0, trainer)) << "zero1 " << zero1;
    }
  }
}

TEST(SkippedStepsTest, LossAloneIsEnough) {
  const ProcessMesh mesh = Mesh();
  Trainer trainer(Config(false), mesh, TinyRows(Config(false)));
  trainer.ComputeGradients(0);
  const auto skip = [&](double loss_of_last_rank, SkipRule rule) {
    const bool last = World()->rank() + 1 == World()->size();
    std::vector<double> losses = {1.0, last ? loss_of_last_rank : 0.5};
    return DecideStep(trainer.buffers(), trainer.buckets(),
                      at::from_blob(losses.data(), {2}, at::kDouble), 1.0, rule, *World())
        .skip.item<bool>();
  };
  EXPECT_FALSE(skip(2.0, SkipRule::kTogether));
  EXPECT_TRUE(skip(kNaN, SkipRule::kTogether));
  EXPECT_TRUE(skip(-kInfinity, SkipRule::kTogether));
  EXPECT_FALSE(skip(kNaN, SkipRule::kNever));
  EXPECT_EQ(skip(kNaN, SkipRule::kAlone), World()->rank() + 1 == World()->size());
}

TEST(SkippedStepsTest, TooManyInARowEndTheRunWithTheTensor) {
  const int rank = World()->size() - 1;
  for (const bool zero1 : {false, true}) {
    const ProcessMesh mesh = Mesh();
    const RunConfig config = Config(zero1);
    Trainer trainer(config, mesh, TinyRows(config));
    NumberGuard guard(config.train(), trainer, mesh);
    int64_t step = 0;
    const auto take = [&](int count) {
      absl::Status status;
      for (int i = 0; i < count; ++i) {
        EXPECT_TRUE(status.ok()) << status;
        const StepResult result = trainer.TrainStep(step++);
        status = guard.CheckStep(step, result);
      }
      return status;
    };
    Inject({kExpert, kInfinity, rank}, trainer);
    EXPECT_TRUE(take(4).ok());
    Stop(trainer);
    EXPECT_TRUE(take(1).ok());  // so the next ones are not in a row with those before
    Inject({kExpert, kInfinity, rank}, trainer);
    const absl::Status status = take(5);
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kInternal);
    const std::string expert =
        ExpertName(Find(trainer, kExpert),
                   mesh.expert->size() == 1 ? 0 : ExpertsOfRank(6, mesh.expert->size(), 1).begin);
    EXPECT_THAT(std::string(status.message()), HasSubstr("step 10: "));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("that of " + expert + " (0 NaN and 1 infinite of 384, found on rank "));
    const std::vector<std::string> all = World()->AllGatherText(std::string(status.message()));
    for (const std::string& other : all) EXPECT_EQ(other, all[0]);
  }
}

TEST(SkippedStepsTest, TheRankWhereTheLossWentWrongIsNamed) {
  const ProcessMesh mesh = Mesh();
  RunConfig config = Config(false);
  config.mutable_train()->set_max_skipped_steps(0);
  Trainer trainer(config, mesh, TinyRows(config));
  NumberGuard guard(config.train(), trainer, mesh);
  const int rank = World()->size() / 2;
  Inject({kLoss, kNaN, rank}, trainer);
  const absl::Status status = guard.CheckStep(1, trainer.TrainStep(0));
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not finite is that of wte.weight ("));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("losses are not finite on rank " + std::to_string(rank)));
}

// A whole run that goes wrong after step 6 of 12, and one that goes on from its last checkpoint.
TEST(SkippedStepsTest, RunEndsAndGoesOnFromTheLastCheckpoint) {
  const SharedFolder folder;
  PretrainOptions options;
  options.config = Config(false);
  options.config.mutable_train()->set_steps(12);
  options.config.mutable_checkpoint()->set_every(4);
  options.config.mutable_data()->add_train()->set_prefix(folder / "tokens");
  options.run_dir = folder / "run";
  WriteTinyTokenFile(folder / "tokens", 3000);
  options.after_step = [](int64_t taken, Trainer& trainer) {
    if (taken == 6) Inject({kRouter, kNaN, 0}, trainer);
  };
  const absl::Status status = Pretrain(options, Mesh());
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 11: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("h.0.mlp.router.w_gate ("));
  EXPECT_TRUE(std::filesystem::exists(folder / "run/checkpoints/step_00000008"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run/checkpoints/step_00000012"));
  World()->Barrier();

  options.after_step = {};
  EXPECT_TRUE(Pretrain(options, Mesh()).ok());
  if (World()->rank() != 0) return;
  std::ifstream in(folder / "run/metrics.jsonl");
  std::vector<int64_t> skipped;
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    if (json["kind"] == "train") skipped.push_back(json["skipped_steps"].get<int64_t>());
  }
  // The checkpoint knows of the two before it.
  EXPECT_EQ(skipped, (std::vector<int64_t>{0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2}));
}

}  // namespace
}  // namespace hypermoe
