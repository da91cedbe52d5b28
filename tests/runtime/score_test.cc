#include "runtime/score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_split.h"
#include "runtime/score_runs.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kSst2[] = "sentence\tlabel\ngood\t1\nbad\t0\nfine\t1\nawful\t0\n";
constexpr char kSquad[] = R"({"data": [{"paragraphs": [{"context": "c", "qas": [
    {"id": "q1", "question": "?", "answers": [{"text": "U.S."}, {"text": "the States"}]},
    {"id": "q2", "question": "?", "answers": [{"text": "the"}]},
    {"id": "q3", "question": "?", "answers": [{"text": "big moose"}]}]}]}]})";

class ScoreTest : public ::testing::Test {
 protected:
  // References and files of predictions as they stand in files.
  absl::StatusOr<ScoreResult> ScoreOf(const std::string& task, const std::string& references,
                                      const std::vector<std::string>& predictions,
                                      const std::vector<std::string>& compare = {}) {
    options_.task = FindTask(task);
    options_.references = references.empty() ? "" : folder_.Write("references", references);
    for (const std::string& text : predictions)
      options_.predictions.push_back(NewFile("predictions", text));
    for (const std::string& text : compare) options_.compare.push_back(NewFile("compare", text));
    const auto result = Score(options_);
    options_.predictions.clear();
    options_.compare.clear();
    return result;
  }
  std::string Error(const std::string& task, const std::string& references,
                    const std::string& predictions) {
    const auto result = ScoreOf(task, references, {predictions});
    EXPECT_FALSE(result.ok());
    return result.ok() ? "" : std::string(result.status().message());
  }
  std::string NewFile(const std::string& name, const std::string& text) {
    return folder_.Write(name + std::to_string(folder_.size()), text);
  }

  TemporaryFolder folder_;
  ScoreOptions options_;
};

// What PreparedMetrics takes for granted.
TEST(TaskMetricNamesTest, EveryTasksMetricsAreThereAndOfOneKind) {
  for (const Task* task : AllTasks()) {
    std::set<std::string_view> keys;
    for (const std::string_view name : task->metrics()) {
      const MetricType* type = FindMetric(name);
      ASSERT_NE(type, nullptr) << task->name() << name;
      EXPECT_EQ(type->kind, AnswerKindOf(*task)) << task->name() << name;
      EXPECT_TRUE(keys.insert(type->key).second) << task->name() << name;
    }
    EXPECT_EQ(task->is_text(), AnswerKindOf(*task) == AnswerKind::kLoss) << task->name();
  }
}

TEST_F(ScoreTest, InMemoryAsFromFiles) {
  const auto examples = FindTask("sst2")->ReadFile(folder_.Write("sst2", kSst2), DataConfig::t5,
                                                   TaskUse::kEvaluation);
  ASSERT_TRUE(examples.ok()) << examples.status();
  const TaskScore score =
      ScoreOutputs(*FindTask("sst2"), *examples, {"positive", "negative", "no idea", "positive"},
                   DataConfig::t5);
  EXPECT_EQ(score.examples, 4);
  EXPECT_EQ(score.invalid, 1);
  ASSERT_EQ(score.values.size(), 1u);
  EXPECT_EQ(score.values[0].name, "accuracy");
  EXPECT_EQ(score.values[0].value, 50);

  const auto result = ScoreOf("sst2", kSst2,
                              {"{\"input\": \"x\", \"output\": \"positive\"}\n"
                               "{\"output\": \"negative\"}\n\n"
                               "{\"prediction\": \"no idea\", \"output\": \"positive\"}\n"
                               "{\"output\": \"positive\"}\n"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->model.means, ElementsAre(50));
  EXPECT_EQ(result->model.files[0].invalid, 1);
}

TEST_F(ScoreTest, StemmerFollowsTemplates) {
  EXPECT_TRUE(MetricOptionsOf(DataConfig::off).stemmer);
  EXPECT_FALSE(MetricOptionsOf(DataConfig::t5).stemmer);
  const std::string references = "{\"reference\": \"the dogs run\"}\n";
  const std::string predictions = "{\"prediction\": \"the dogs running\"}\n";
  const auto rouge2 = [&] {
    const auto result = ScoreOf("xsum", references, {predictions});
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->model.means[0] : -1;
  };
  EXPECT_DOUBLE_EQ(rouge2(), 50);
  options_.templates = DataConfig::off;
  EXPECT_DOUBLE_EQ(rouge2(), 100);
  options_.stemmer = false;
  EXPECT_DOUBLE_EQ(rouge2(), 50);
}

TEST_F(ScoreTest, SquadByIdsAsPublished) {
  // q2 is missing, for which an empty text would be right; q9 is nobody's.
  const auto result =
      ScoreOf("squad", kSquad, {"{\"q3\": \"a moose\", \"q9\": \"x\", \"q1\": \"The US\"}"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->metrics, ElementsAre("exact_match", "f1"));
  EXPECT_NEAR(result->model.means[0], 100. / 3, 1e-9);
  EXPECT_NEAR(result->model.means[1], (100 + 200. / 3) / 3, 1e-9);
  EXPECT_EQ(result->model.files[0].missing, 1);
  EXPECT_EQ(result->model.files[0].unknown, 1);
  EXPECT_EQ(result->model.files[0].invalid, 0);

  // The same as lines, in any order, with what belongs to none first.
  const auto lines = ScoreOf("squad", kSquad,
                             {"{\"id\": \"q9\", \"prediction\": \"x\"}\n"
                              "{\"id\": \"q3\", \"prediction\": \"a moose\"}\n"
                              "{\"id\": \"q1\", \"prediction\": \"The US\"}\n"});
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_EQ(lines->model.means, result->model.means);
  EXPECT_EQ(lines->model.files[0].unknown, 1);
}

TEST_F(ScoreTest, OneObjectOrLines) {
  const std::string reference = "{\"id\": \"q\", \"reference\": \"yes\"}\n";
  for (const char* text :
       {"{\n  \"q\": \"yes\"\n}\n", "{\"q\": \"yes\"}", "{\"prediction\": \"yes\"}",
        "\n{\"output\": \"yes\", \"id\": \"q\"}\n"}) {
    const auto result = ScoreOf("squad", reference, {text});
    ASSERT_TRUE(result.ok()) << text << result.status();
    EXPECT_THAT(result->model.means, ElementsAre(100, 100)) << text;
  }
}

TEST_F(ScoreTest, ReferencesOfOnesOwn) {
  const auto labels = ScoreOf("multirc",
                              "{\"reference\": \"True\", \"group\": \"a\"}\n"
                              "{\"reference\": \"False\", \"group\": \"a\"}\n"
                              "{\"references\": [\"True\"], \"group\": 7}\n",
                              {"{\"prediction\": \"True\"}\n{\"prediction\": \"True\"}\n"
                               "{\"prediction\": \"True\"}\n"});
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_THAT(labels->metrics, ElementsAre("f1", "exact_match"));
  EXPECT_THAT(labels->model.means, ElementsAre(80, 50));
  const auto scores = ScoreOf("stsb", "{\"reference\": \"1.0\"}\n{\"reference\": \"3.0\"}\n",
                              {"{\"prediction\": \"0.2\"}\n{\"prediction\": \"0.4\"}\n"});
  ASSERT_TRUE(scores.ok()) << scores.status();
  EXPECT_THAT(scores->model.means, ElementsAre(100, 100));
}

TEST_F(ScoreTest, SeedsAndComparison) {
  const std::string right = "positive", wrong = "negative";
  const auto lines = [&](const std::string& answers) {
    std::string text;
    for (const char answer : answers)
      text += "{\"prediction\": \"" + (answer == '+' ? right : wrong) + "\"}\n";
    return text;
  };
  options_.bootstrap.resamples = 2000;
  const auto result = ScoreOf("sst2", kSst2, {lines("+-+-"), lines("++++")}, {lines("----")});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->model.means, ElementsAre(75));
  EXPECT_THAT(result->model.deviations,
              ElementsAre(::testing::DoubleNear(50 / std::sqrt(2.), 1e-9)));
  EXPECT_THAT(result->differences, ElementsAre(25));
  EXPECT_LE(result->intervals[0].low, 25);
  EXPECT_GE(result->intervals[0].high, 25);

  const std::string text = ScoreText(*result);
  EXPECT_THAT(text, AllOf(HasSubstr("mean of 2"), HasSubstr("sample standard deviation"),
                          HasSubstr("difference"), HasSubstr("95 % interval")));
  const std::vector<std::string> written = absl::StrSplit(text, '\n', absl::SkipEmpty());
  const Json json = Json::parse(written.back());
  EXPECT_EQ(json["accuracy"], 75);
  EXPECT_EQ(json["examples"], 4);
  EXPECT_EQ(json["seeds"][0]["accuracy"], 100);
  EXPECT_EQ(json["seeds"][1]["accuracy"], 50);
  EXPECT_EQ(json["compared"]["accuracy"], 50);
  EXPECT_EQ(json["difference"]["accuracy"]["value"], 25);
  EXPECT_LE(json["difference"]["accuracy"]["low"], json["difference"]["accuracy"]["high"]);
}

TEST_F(ScoreTest, LossesOfPlainText) {
  const auto result =
      ScoreOf("wikitext", "", {"{\"loss\": 2, \"balance_loss\": 0.5}\n{\"loss\": 4}\n"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->metrics, ElementsAre("perplexity", "authors_perplexity"));
  EXPECT_NEAR(result->model.means[0], std::exp(3), 1e-9);
  EXPECT_NEAR(result->model.means[1], std::exp(3.25), 1e-9);
  EXPECT_FALSE(ScoreOf("wikitext", "", {"{\"loss\": 2}\n", "{\"loss\": 2}\n{\"loss\": 4}\n"}).ok());
}

TEST_F(ScoreTest, ErrorsSayFileLineAndField) {
  const auto line = [](const std::string& text) { return "{\"prediction\": \"" + text + "\"}\n"; };
  const std::string four = line("a") + line("b") + line("c") + line("d");
  EXPECT_THAT(Error("sst2", kSst2, line("a")),
              AllOf(HasSubstr("1 predictions"), HasSubstr("4 examples")));
  EXPECT_THAT(Error("sst2", kSst2, four + "{\"prediction\": 1}\n"),
              AllOf(HasSubstr(":5"), HasSubstr("'prediction'"), HasSubstr("a text")));
  EXPECT_THAT(Error("sst2", kSst2, line("a") + "{\"predicton\": \"b\"}\n"),
              AllOf(HasSubstr(":2"), HasSubstr("'prediction': missing"), HasSubstr("'predicton'")));
  EXPECT_THAT(Error("sst2", kSst2, line("a") + "{\"prediction\": \"b\"\n"),
              AllOf(HasSubstr(":2"), HasSubstr("JSON")));
  EXPECT_THAT(Error("sst2", kSst2, "positive\nnegative\n"),
              AllOf(HasSubstr(":1"), HasSubstr("JSON")));
  EXPECT_THAT(Error("sst2", kSst2, "\n"), HasSubstr("no prediction"));
  EXPECT_THAT(Error("sst2", kSst2, "{\"q\": \"positive\"}"), HasSubstr("has no ids"));
  EXPECT_THAT(Error("squad", kSquad, "{\"q1\": 3}"), AllOf(HasSubstr("'q1'"), HasSubstr("3")));
  EXPECT_THAT(Error("squad", kSquad, "{\"q1\": \"a\", \"q1\": \"b\"}"), HasSubstr("twice"));
  EXPECT_THAT(Error("squad", kSquad, "{\"x\": \"a\", \"y\": \"b\"}"),
              AllOf(HasSubstr("2 predictions"), HasSubstr("'q1'")));
  EXPECT_THAT(Error("squad", kSquad, "{\"id\": \"q1\", \"output\": \"a\"}\n{\"output\": \"a\"}\n"),
              AllOf(HasSubstr(":2"), HasSubstr("'id'")));
  EXPECT_THAT(Error("squad", kSquad,
                    "{\"id\": \"q1\", \"output\": \"a\"}\n{\"id\": \"q1\", \"output\": \"a\"}\n"),
              AllOf(HasSubstr(":2"), HasSubstr("'id'"), HasSubstr("no line before")));
  EXPECT_THAT(
      Error("squad", "{\"id\": 1, \"reference\": \"a\"}\n{\"id\": 1, \"reference\": \"b\"}\n",
            "{\"id\": 1, \"output\": \"a\"}\n"),
      AllOf(HasSubstr("two examples"), HasSubstr("'1'")));
}

TEST_F(ScoreTest, ErrorsOfReferences) {
  const std::string one = "{\"prediction\": \"a\"}\n";
  EXPECT_THAT(Error("sst2", "{\"reference\": \"good\"}\n", one),
              AllOf(HasSubstr(":1"), HasSubstr("'reference'"), HasSubstr("'good'"),
                    HasSubstr("--templates t5")));
  EXPECT_THAT(Error("stsb", "{\"reference\": \"good\"}\n", one),
              AllOf(HasSubstr("'good'"), HasSubstr("a number")));
  EXPECT_THAT(Error("squad", "{\"references\": []}\n", one), HasSubstr("at least one"));
  EXPECT_THAT(Error("squad", "{\"references\": \"a\"}\n", one), HasSubstr("an array of texts"));
  EXPECT_THAT(Error("squad", "{\"reference\": \"a\"}\n{}\n", one),
              AllOf(HasSubstr(":2"), HasSubstr("'reference': missing")));
  EXPECT_THAT(Error("sst2", "", one), HasSubstr("--references is missing"));
  EXPECT_THAT(Error("wikitext", "{\"reference\": \"a\"}\n", one), HasSubstr("leave it out"));
  EXPECT_THAT(Error("wikitext", "", one), AllOf(HasSubstr(":1"), HasSubstr("'loss'")));
  EXPECT_THAT(Error("wikitext", "", "{\"loss\": 1, \"balance_loss\": \"x\"}\n"),
              HasSubstr("'balance_loss'"));
}

}  // namespace
}  // namespace hypermoe
