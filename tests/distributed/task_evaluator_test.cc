// A model answers a task's examples, each once, and is measured alike at every layout and batch
// size.
#include "runtime/task_evaluator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/support/layouts.h"
#include "tests/support/made_model_folder.h"
#include "tests/support/shared_folder.h"
#include "tests/support/tiny_task.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr size_t kQuestions = 7;

// tests/data/switch_moe with random values, for the tokenizer of bytes.
json ModelKeys() {
  std::ifstream file(HYPERMOE_TEST_DATA "/switch_moe/config.json");
  json config = json::parse(file);
  config["vocab_size"] = 260;
  config["eos_token_id"] = 256;
  config["decoder_start_token_id"] = 259;
  return config;
}

class TaskEvaluatorTest : public testing::Test {
 protected:
  TaskEvaluatorTest() {
    options_.checkpoint = folder_ / "model";
    options_.dtype = "float64";
    options_.task = "squad";
    options_.folder = folder_.path();
    options_.changes.mutable_data()->set_templates(DataConfig::off);
    options_.changes.mutable_decoding()->set_max_length(8);
    options_.changes.mutable_decoding()->set_no_repeat_ngram(2);
    options_.output = folder_ / "answers.jsonl";
    if (World()->rank() == 0) {
      WriteMadeFolder(options_.checkpoint, ModelKeys(), RandomTensors(ModelKeys(), at::kFloat));
      WriteQuestions(folder_.path());
    }
    World()->Barrier();
  }

  EvaluateTaskResult Evaluate(int degree) {
    const auto result = EvaluateTask(options_, World(), degree, nullptr);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(EvaluateTaskResult());
  }

  std::vector<json> Lines() {
    std::vector<json> lines;
    std::ifstream file(options_.output);
    for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
    World()->Barrier();  // the next evaluation replaces the file
    return lines;
  }

  // Has every other question the answer that the model gives.
  void MakeHalfOfThemRight() {
    Evaluate(1);
    const std::vector<json> lines = Lines();
    if (World()->rank() == 0) {
      std::vector<std::string> answers;
      for (size_t i = 0; i < lines.size(); ++i)
        answers.push_back(i % 2 == 0 ? lines[i]["prediction"].get<std::string>() : "not that");
      WriteQuestions(folder_.path(), answers);
    }
    World()->Barrier();
  }

  SharedFolder folder_;
  EvaluateTaskOptions options_;
};

TEST_F(TaskEvaluatorTest, LayoutAndBatchSizeDoNotMatter) {
  for (const int beams : {1, 3}) {
    options_.changes.mutable_decoding()->set_beams(beams);
    options_.changes.mutable_decoding()->set_batch_size(1);
    MakeHalfOfThemRight();
    std::vector<json> expected;
    for (const int batch_size : {1, 3, 100}) {
      options_.changes.mutable_decoding()->set_batch_size(batch_size);
      for (const int degree : Degrees()) {
        const EvaluateTaskResult result = Evaluate(degree);
        EXPECT_EQ(result.score.examples, int64_t{kQuestions});
        EXPECT_EQ(result.score.invalid, 0);
        ASSERT_EQ(result.score.values.size(), 2u);
        EXPECT_EQ(result.score.values[0].name, "exact_match");
        EXPECT_DOUBLE_EQ(result.score.values[0].value, 400.0 / 7);
        const std::vector<json> lines = Lines();
        if (expected.empty()) expected = lines;
        EXPECT_EQ(lines, expected) << "batch size " << batch_size << ", degree " << degree;
      }
    }
    ASSERT_EQ(expected.size(), kQuestions);
    std::set<json> predictions;
    for (size_t i = 0; i < kQuestions; ++i) {
      EXPECT_EQ(expected[i]["id"], "q" + std::to_string(100 + i)) << "in the file's order";
      predictions.insert(expected[i]["prediction"]);
    }
    EXPECT_GE(predictions.size(), 3u) << "the questions do not matter";
  }
}

TEST_F(TaskEvaluatorTest, CountsWhatIsCut) {
  options_.changes.mutable_data()->set_source_length(66);
  const EvaluateTaskResult result = Evaluate(1);
  int64_t longer = 0;
  for (const json& line : Lines()) {
    if (line["source"].get<std::string>().size() > 65) ++longer;
  }
  EXPECT_GT(longer, 0);
  EXPECT_LT(longer, int64_t{kQuestions});
  EXPECT_EQ(result.cut_sources, longer);
  EXPECT_EQ(result.cut_targets, 0);
}

TEST_F(TaskEvaluatorTest, ATestSplitNeedsNoLabels) {
  options_.task = "sst2";
  options_.split = TaskSplit::kTest;
  if (World()->rank() == 0) {
    std::ofstream(folder_ / "test.tsv") << "index\tsentence\n0\ta fine film\n1\ta film\n";
  }
  World()->Barrier();
  const EvaluateTaskResult result = Evaluate(0);
  EXPECT_TRUE(result.score.values.empty());
  EXPECT_EQ(result.score.examples, 2);
  const std::vector<json> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1]["id"], "1");
  EXPECT_EQ(lines[1]["source"], "sst2 sentence: a film");
}

TEST_F(TaskEvaluatorTest, RefusesWhatTheModelCannotDo) {
  const auto error = [&] {
    const absl::Status status = EvaluateTask(options_, World(), 0, nullptr).status();
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  };
  options_.folder = folder_ / "nowhere";
  EXPECT_THAT(error(), HasSubstr("nowhere"));
  options_.task = "wikitext";
  EXPECT_THAT(error(), HasSubstr("needs a model without an encoder"));
  options_.task = "nonsense";
  EXPECT_THAT(error(), HasSubstr("there is no task 'nonsense'"));
  options_.task = "sst2";
  options_.checkpoint = HYPERMOE_TEST_DATA "/gpt2_dense";
  EXPECT_THAT(error(), HasSubstr("needs a model with an encoder"));
}

}  // namespace
}  // namespace hypermoe
