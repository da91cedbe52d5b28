// Whole runs on tasks: epochs, the best checkpoint, patience, and what of it survives a stop.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/checkpoint_folder.h"
#include "runtime/evaluator.h"
#include "runtime/task_evaluator.h"
#include "tests/support/mpi_test.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_run.h"
#include "tests/support/tiny_task.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class FinetuneTest : public testing::Test {
 protected:
  FinetuneTest() {
    if (World()->rank() == 0) {
      WriteSentiments(folder_.path());
      WriteText(folder_.path());
    }
    World()->Barrier();
  }

  // 26 examples in batches of 12: 13 steps in 6 epochs. A validation every 2 steps.
  PretrainOptions Options(const std::string& run) const {
    PretrainOptions options;
    options.config =
        TinyTaskConfig(ModelConfig::hyper, RuntimeConfig::float32, "sst2", folder_.path());
    return WithLength(run, options);
  }
  // The same with 13 steps on a text.
  PretrainOptions TextOptions(const std::string& run) const {
    PretrainOptions options;
    options.config = TinyConfig(ModelConfig::moe, 6, RuntimeConfig::float32);
    options.config.mutable_data()->set_task("wikitext");
    options.config.mutable_data()->set_folder(folder_.path());
    options = WithLength(run, options);
    options.config.mutable_train()->set_epochs(0);
    options.config.mutable_train()->set_steps(13);
    return options;
  }
  std::string Run(const std::string& run) const { return folder_ / run; }

  // Runs to a step, or (0) to the end.
  void RunTo(PretrainOptions options, int64_t step) const {
    options.stop_at_step = step;
    const absl::Status status = Pretrain(options, ProcessMesh::Create(World(), World()->size()));
    if (step > 0) {
      ASSERT_EQ(ExitCodeOf(status), ExitCode::kStopped) << status;
    } else {
      ASSERT_TRUE(status.ok()) << status;
    }
    World()->Barrier();
  }

  SharedFolder folder_;

 private:
  PretrainOptions WithLength(const std::string& run, PretrainOptions options) const {
    options.config.mutable_train()->set_steps(0);
    options.config.mutable_train()->set_epochs(6);
    options.config.mutable_train()->set_micro_batches(2);
    options.config.mutable_train()->set_validation_every(2);
    options.config.mutable_checkpoint()->set_every(4);
    options.config.mutable_optimizer()->clear_warmup_steps();
    options.config.mutable_optimizer()->set_warmup_fraction(0.3);
    options.run_dir = folder_ / run;
    return options;
  }
};

std::vector<json> Validations(const std::string& run_dir) {
  std::vector<json> lines;
  std::ifstream file(run_dir + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const json parsed = json::parse(line);
    if (parsed["kind"] == "validation") lines.push_back(parsed);
  }
  return lines;
}

int64_t StepOf(const std::string& run_dir) {
  return ReadCheckpointInfo(ResolveCheckpoint(run_dir).value())->step;
}

TEST_F(FinetuneTest, EpochsAreStepsAndAStopChangesNothing) {
  RunTo(Options("whole"), 0);
  for (const int64_t step : {3, 4, 9}) RunTo(Options("stopped"), step);
  RunTo(Options("stopped"), 0);
  RunTo(Options("stopped"), 0);  // complete, so nothing is added
  EXPECT_EQ(StepOf(Run("whole")), 13);
  ExpectSameTensors(Run("stopped"), Run("whole"));
  EXPECT_EQ(Metrics(Run("stopped")), Metrics(Run("whole")));
  const std::vector<json> validations = Validations(Run("whole"));
  ASSERT_EQ(validations.size(), 7u);
  for (const json& line : validations) {
    EXPECT_EQ(line["examples"], 7);
    EXPECT_GE(line["accuracy"].get<double>(), 0);
  }
  EXPECT_LT(validations.back()["loss"].get<double>(), validations.front()["loss"].get<double>());
  // What evaluates it says the same.
  EvaluateTaskOptions options;
  options.checkpoint = Run("whole");
  options.task = "sst2";
  const auto evaluated = EvaluateTask(options, World(), 0, nullptr);
  ASSERT_TRUE(evaluated.ok()) << evaluated.status();
  EXPECT_EQ(evaluated->score.values.at(0).value, validations.back()["accuracy"].get<double>());
  EXPECT_EQ(evaluated->step, 13);
  const auto loss = Evaluate({Run("whole"), "", ""}, World(), 0);
  ASSERT_TRUE(loss.ok()) << loss.status();
  EXPECT_NEAR(loss->loss, validations.back()["loss"].get<double>(), 1e-6);
}

// A model that has hardly begun never answers: no validation is better than the first.
TEST_F(FinetuneTest, PatienceEndsTheRunAlsoAfterAStop) {
  const auto options = [&](const std::string& run) {
    PretrainOptions patient = Options(run);
    patient.config.mutable_optimizer()->set_learning_rate(1e-6);
    patient.config.mutable_optimizer()->set_min_learning_rate(0);
    patient.config.mutable_train()->set_patience(2);
    patient.config.mutable_train()->set_keep_best(true);
    patient.config.mutable_checkpoint()->set_every(1);
    patient.config.mutable_checkpoint()->set_keep(1);
    return patient;
  };
  RunTo(options("whole"), 0);
  for (const int64_t step : {2, 3, 5}) RunTo(options("stopped"), step);
  RunTo(options("stopped"), 0);
  RunTo(options("stopped"), 0);
  for (const char* run : {"whole", "stopped"}) {
    EXPECT_EQ(Validations(Run(run)).size(), 3u) << "after steps 2, 4 and 6";
    EXPECT_EQ(CheckpointSteps(Run(run)).value(), (std::vector<int64_t>{6, 2}));
    EXPECT_EQ(StepOf(Run(run)), 2) << "the best";
  }
  EXPECT_EQ(Metrics(Run("stopped")), Metrics(Run("whole")));
  ExpectSameTensors(Run("stopped"), Run("whole"));
}

// The perplexity falls, so the best is always the latest, and takes the place of the one before.
TEST_F(FinetuneTest, TheBestMovesOn) {
  const auto options = [&](const std::string& run) {
    PretrainOptions best = TextOptions(run);
    best.config.mutable_train()->set_keep_best(true);
    best.config.mutable_checkpoint()->set_every(0);
    best.config.mutable_checkpoint()->set_keep(1);
    return best;
  };
  RunTo(options("whole"), 5);
  EXPECT_EQ(StepOf(Run("whole")), 4);
  EXPECT_EQ(CheckpointSteps(Run("whole")).value(), (std::vector<int64_t>{5, 4}));
  RunTo(options("whole"), 0);
  EXPECT_EQ(StepOf(Run("whole")), 13);
  EXPECT_EQ(CheckpointSteps(Run("whole")).value(), (std::vector<int64_t>{13}));
  const std::vector<json> lines = Validations(Run("whole"));
  ASSERT_EQ(lines.size(), 7u);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_NEAR(lines[i]["perplexity"].get<double>(), std::exp(lines[i]["loss"].get<double>()),
                1e-6);
    EXPECT_GT(lines[i]["authors_perplexity"], lines[i]["perplexity"]);
    if (i > 0) {
      EXPECT_LT(lines[i]["perplexity"], lines[i - 1]["perplexity"]);
    }
  }
}

TEST_F(FinetuneTest, RefusesOtherExamplesUnderTheSameName) {
  RunTo(Options("run"), 3);
  if (World()->rank() == 0) {
    std::ofstream(folder_ / "dev.tsv", std::ios::app) << "one more\t1\n";
  }
  World()->Barrier();
  const absl::Status status =
      Pretrain(Options("run"), ProcessMesh::Create(World(), World()->size()));
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("files of the task"));
}

}  // namespace
}  // namespace hypermoe
