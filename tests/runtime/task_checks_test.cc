// The fields of fine-tuning: what must not be set together, and what does nothing alone.
#include "runtime/task_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/config_loader.h"
#include "runtime/learning_rate.h"
#include "runtime/run_length.h"
#include "runtime/task.h"
#include "runtime/task_settings.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// What ValidateConfig says of a configuration with these changes, "" if nothing.
std::string ErrorOf(std::vector<std::string> changes) {
  const auto config = LoadConfig("", changes);
  EXPECT_TRUE(config.ok()) << config.status();
  const absl::Status status = ValidateConfig(*config);
  if (!status.ok()) {
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig) << status;
  }
  return std::string(status.message());
}

std::vector<std::string> With(std::vector<std::string> changes,
                              const std::vector<std::string>& more) {
  changes.insert(changes.end(), more.begin(), more.end());
  return changes;
}

std::string PlainError(const std::vector<std::string>& more) {
  return ErrorOf(With({"train.steps=1000"}, more));
}

std::string TaskError(const std::vector<std::string>& more) {
  return ErrorOf(
      With({"model.family=switch_transformers", "model.vocab_size=358", "model.end_id=256",
            "data.task=sst2", "data.folder=somewhere", "train.epochs=3"},
           more));
}

std::string TextError(const std::vector<std::string>& more) {
  return ErrorOf(With({"data.task=wikitext", "data.folder=somewhere", "train.epochs=3"}, more));
}

TEST(TaskChecksTest, AcceptWhatTheyKnow) {
  EXPECT_EQ(TaskError({}), "");
  EXPECT_EQ(
      TaskError({"data.templates=off", "data.source_length=64", "data.target_length=8",
                 "data.pad_to_length=true", "train.patience=3", "train.keep_best=true",
                 "optimizer.warmup_fraction=0.1", "decoding.beams=4", "decoding.length_penalty=0.6",
                 "decoding.min_length=1", "decoding.max_length=9", "decoding.batch_size=5"}),
      "");
  EXPECT_EQ(TextError({"data.templates=off", "train.keep_best=true"}), "");
  EXPECT_EQ(TextError({"train.epochs=0", "train.tokens=10000000"}), "");
}

TEST(TaskChecksTest, WithoutATaskItsFieldsDoNothing) {
  for (const char* change :
       {"data.folder=x", "data.templates=off", "data.source_length=5", "data.target_length=5",
        "data.pad_to_length=true", "train.patience=2", "train.keep_best=true", "decoding.beams=2",
        "decoding.length_penalty=2", "decoding.no_repeat_ngram=2", "decoding.min_length=2",
        "decoding.max_length=2", "decoding.batch_size=2"}) {
    const std::string field = std::string(change).substr(0, std::string(change).find('='));
    EXPECT_THAT(PlainError({change}),
                AllOf(HasSubstr(field + " is "), HasSubstr("data.task is not set")));
  }
  EXPECT_THAT(ErrorOf({"train.epochs=2"}), HasSubstr("train.epochs is 2"));
}

TEST(TaskChecksTest, OfTheTask) {
  EXPECT_THAT(TaskError({"data.task=sst3"}),
              AllOf(HasSubstr("data.task: there is no task 'sst3'"), HasSubstr("sst2")));
  EXPECT_THAT(TaskError({"data.folder="}), HasSubstr("data.folder is not set"));
  EXPECT_THAT(TaskError({"data.task=wikitext"}), HasSubstr("needs a model without an encoder"));
  EXPECT_THAT(TextError({"data.task=sst2"}),
              AllOf(HasSubstr("data.task sst2 needs a model with an encoder"), HasSubstr("gpt2")));
  for (const char* change : {"data.source_length=5", "data.target_length=5",
                             "data.pad_to_length=true", "decoding.batch_size=4"}) {
    EXPECT_THAT(TextError({change}), HasSubstr("is plain text"));
  }
  EXPECT_THAT(TaskError({"model.end_id=3"}), HasSubstr("the model ends texts with id 3"));
}

TEST(TaskChecksTest, OfOtherData) {
  for (const char* change : {"data.train=a", "data.validation=a", "data.validation_fraction=0.2",
                             "data.noise_density=0.2", "data.mean_span_length=4"}) {
    const std::string field = std::string(change).substr(0, std::string(change).find('='));
    EXPECT_THAT(TaskError({change}),
                AllOf(HasSubstr(field + " is "), HasSubstr("but data.task is sst2")));
  }
}

TEST(TaskChecksTest, OfLengthAndValidation) {
  EXPECT_THAT(TaskError({"train.steps=5"}),
              HasSubstr("train.steps (5) and train.epochs (3) are both set"));
  EXPECT_THAT(TaskError({"train.epochs=0", "train.tokens=1000000"}),
              HasSubstr("have no fixed length"));
  for (const char* field : {"train.patience=2", "train.keep_best=true"}) {
    EXPECT_THAT(TaskError({field, "train.validation_every=0"}),
                HasSubstr("train.validation_every is 0"));
    EXPECT_THAT(TaskError({field, "train.validation_windows=9"}),
                HasSubstr("train.validation_windows is 9"));
  }
  EXPECT_THAT(TaskError({"optimizer.warmup_fraction=0.1", "optimizer.warmup_steps=7"}),
              HasSubstr("optimizer.warmup_steps is 7"));
}

TEST(TaskChecksTest, OfDecoding) {
  EXPECT_THAT(TaskError({"decoding.beams=0"}), HasSubstr("decoding.beams is 0"));
  EXPECT_THAT(TaskError({"decoding.max_length=0"}), HasSubstr("decoding.max_length is 0"));
  EXPECT_THAT(TaskError({"decoding.min_length=17"}),
              HasSubstr("decoding.min_length (17) must be at most decoding.max_length (16)"));
  EXPECT_THAT(TaskError({"decoding.length_penalty=2"}), HasSubstr("decoding.beams is 1"));
}

TEST(TaskSettingsTest, AreTheTasksWhereNothingIsGiven) {
  const Task& task = *FindTask("sst2");
  RunConfig config = *LoadConfig("", {});
  EXPECT_EQ(LengthsOf(task, config.data()).source, 256);
  EXPECT_EQ(LengthsOf(task, config.data()).target, task.defaults().target_length);
  EXPECT_EQ(SearchOf(task, config.decoding()).beams, 1);
  EXPECT_EQ(SearchOf(task, config.decoding()).max_length, 1 + task.defaults().max_length);
  config = *LoadConfig("", {"data.source_length=7", "data.target_length=3", "decoding.beams=5",
                            "decoding.min_length=2", "decoding.max_length=6",
                            "decoding.no_repeat_ngram=3", "decoding.length_penalty=2"});
  EXPECT_EQ(LengthsOf(task, config.data()).source, 7);
  EXPECT_EQ(LengthsOf(task, config.data()).target, 3);
  const BeamSearchOptions search = SearchOf(task, config.decoding());
  EXPECT_EQ(search.beams, 5);
  EXPECT_EQ(search.min_length, 3) << "with the start token";
  EXPECT_EQ(search.max_length, 7);
  EXPECT_EQ(search.no_repeat_ngram, 3);
  EXPECT_EQ(search.length_penalty, 2);
}

TEST(LengthInStepsTest, HasEveryEpochWhole) {
  RunConfig config = *LoadConfig("", {"train.epochs=3", "train.batch_size=4"});
  const auto steps = [&](int64_t rows) {
    const auto in_steps = LengthInSteps(config, rows);
    EXPECT_TRUE(in_steps.ok()) << in_steps.status();
    EXPECT_EQ(in_steps->train().epochs(), 0);
    return TotalSteps(*in_steps);
  };
  config.mutable_optimizer()->set_warmup_steps(0);
  EXPECT_EQ(steps(8), 6);
  EXPECT_EQ(steps(9), 7);  // 27 rows
  EXPECT_EQ(steps(1), 1);
  config.mutable_optimizer()->set_warmup_steps(7);
  EXPECT_THAT(std::string(LengthInSteps(config, 8).status().message()),
              AllOf(HasSubstr("optimizer.warmup_steps (7)"), HasSubstr("train.epochs (3)")));
  config.mutable_optimizer()->set_warmup_fraction(0.5);
  EXPECT_EQ(steps(8), 6);
  config.mutable_train()->set_epochs(0);
  config.mutable_train()->set_steps(9);
  EXPECT_EQ(steps(8), 9) << "as it is";
}

TEST(WarmupTest, IsAShareOfTheSteps) {
  OptimizerConfig config;
  config.set_learning_rate(1);
  config.set_min_learning_rate(0);
  config.set_schedule(OptimizerConfig::linear);
  config.set_warmup_fraction(0.1);
  EXPECT_EQ(WarmupSteps(config, 30), 3);
  EXPECT_EQ(WarmupSteps(config, 31), 4);
  EXPECT_EQ(WarmupSteps(config, 1), 1);
  OptimizerConfig in_steps = config;
  in_steps.clear_warmup_fraction();
  in_steps.set_warmup_steps(3);
  for (int64_t step = 0; step < 30; ++step)
    EXPECT_EQ(LearningRate(config, step, 30), LearningRate(in_steps, step, 30)) << step;
  EXPECT_EQ(LearningRate(config, 3, 30), 1);
  EXPECT_EQ(LearningRate(config, 29, 30), 0);
}

}  // namespace
}  // namespace hypermoe
