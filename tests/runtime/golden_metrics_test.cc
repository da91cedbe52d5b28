// Metrics against published and computed values. Needs ../shared and skips itself without it.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"
#include "runtime/rouge.h"
#include "runtime/score_runs.h"
#include "runtime/squad_answers.h"
#include "tests/support/metric_values.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using Json = nlohmann::json;

const std::string kData = HYPERMOE_SOURCE_DIR "/../shared/data/";
constexpr double kTolerance = 1e-6;

class GoldenMetricsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kData)) GTEST_SKIP() << "no " << kData;
  }
  static Json Golden(const std::string& name) {
    return Json::parse(ReadFile(kData + "golden/" + name));
  }
};

// As a text: an integer, a number or a text.
std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::vector<MeasuredExample> ExamplesOf(const Json& item, const std::string& group) {
  std::vector<MeasuredExample> examples;
  for (size_t i = 0; i < item["targets"].size(); ++i) {
    examples.push_back(
        Answered(TextOf(item["predictions"][i]), {TextOf(item["targets"][i])}, group));
  }
  return examples;
}

TEST_F(GoldenMetricsTest, LabelsAndScores) {
  const Json golden = Golden("glue_metrics.json");
  // Their names there, and what theirs is times ours: two of them are fractions.
  const std::map<std::string, std::pair<std::string, double>> names = {
      {"accuracy", {"accuracy", 1}},
      {"f1_with_invalid", {"f1", 1}},
      {"f1_binary", {"f1", 1}},
      {"macro_f1_3class", {"macro_f1", 1}},
      {"all_match", {"question_match", 1}},
      {"sequence_accuracy", {"text_accuracy", 1}},
      {"auc_roc", {"auc_roc", 0.01}},
      {"auc_pr", {"auc_pr", 0.01}},
      {"matthews", {"matthews", 1}},
      {"pearson", {"pearson", 1}},
      {"spearman", {"spearman", 1}}};
  ASSERT_EQ(golden["cases"].size(), 28u);
  for (const Json& item : golden["cases"]) {
    const auto& [name, scale] = names.at(item["metric"]);
    const bool four_places = item["metric"] == "auc_pr";
    EXPECT_NEAR(scale * MetricOf(name, ExamplesOf(item, "a")), item["value"].get<double>(),
                four_places ? 5e-5 : kTolerance)
        << item.dump();
  }
}

TEST_F(GoldenMetricsTest, AnswersInGroups) {
  const Json golden = Golden("glue_metrics.json");
  const auto value = [&](const char* item, const char* metric) {
    std::vector<MeasuredExample> examples;
    for (size_t i = 0; i < golden[item]["targets"].size(); ++i) {
      const Json& target = golden[item]["targets"][i];
      examples.push_back(Answered(TextOf(golden[item]["predictions"][i]["value"]),
                                  {TextOf(target["value"])}, target["group"]));
    }
    return MetricOf(metric, examples);
  };
  EXPECT_NEAR(value("multirc", "f1"), golden["multirc"]["f1_over_all_answers"].get<double>(),
              kTolerance);
  EXPECT_NEAR(value("group_mean", "group_accuracy"),
              golden["group_mean"]["mean_group_accuracy"].get<double>(), kTolerance);
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

TEST_F(GoldenMetricsTest, SquadNormalization) {
  const Json golden = Golden("squad_em_f1.json");
  AnswerNormalizer normalizer;
  size_t cases = 0;
  for (const Json* items :
       {&golden["published"]["normalization"], &golden["normalization_computed"]["cases"]}) {
    for (const Json& item : *items) {
      EXPECT_EQ(Joined(normalizer.Words(item["text"].get<std::string>())), item["normalized"]);
      ++cases;
    }
  }
  EXPECT_EQ(cases, 48u);
}

TEST_F(GoldenMetricsTest, SquadAnswers) {
  const Json golden = Golden("squad_em_f1.json");
  ASSERT_EQ(golden["published"]["cases"].size(), 4u);
  for (const Json& item : golden["published"]["cases"]) {
    std::vector<MeasuredExample> examples;
    for (size_t i = 0; i < item["targets"].size(); ++i)
      examples.push_back(Answered(item["predictions"][i], item["targets"][i]));
    EXPECT_NEAR(MetricOf("exact_match", examples), item["em"].get<double>(), kTolerance);
    EXPECT_NEAR(MetricOf("token_f1", examples), item["f1"].get<double>(),
                item.value("tolerance", kTolerance))
        << item["name"];
  }
  ASSERT_EQ(golden["per_question"]["cases"].size(), 160u);
  for (const Json& item : golden["per_question"]["cases"]) {
    const std::vector<MeasuredExample> one = {Answered(item["prediction"], item["answers"])};
    EXPECT_NEAR(MetricOf("exact_match", one), 100 * item["exact_match"].get<double>(), kTolerance)
        << item["id"];
    EXPECT_NEAR(MetricOf("token_f1", one), 100 * item["f1"].get<double>(), kTolerance)
        << item["id"];
  }
}

TEST_F(GoldenMetricsTest, WholeSquadDevelopmentSet) {
  const Json golden = Golden("squad_em_f1.json")["whole_dev_set"];
  const Json& expected = golden["results"]["logistic-regression"];
  ScoreOptions options;
  options.task = FindTask("squad");
  options.references = kData + "squad/dev-v1.1.json";
  options.predictions = {kData +
                         golden["prediction_files"]["logistic-regression"].get<std::string>()};
  const auto result = Score(options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->examples, expected["questions"].get<int64_t>());
  EXPECT_EQ(result->metrics, (std::vector<std::string>{"exact_match", "f1"}));
  EXPECT_NEAR(result->model.means[0], expected["exact_match"].get<double>(), kTolerance);
  EXPECT_NEAR(result->model.means[1], expected["f1"].get<double>(), kTolerance);
  const ScoredFile& file = result->model.files[0];
  EXPECT_EQ(file.missing, expected["missing_predictions"].get<int64_t>());
  EXPECT_EQ(file.unknown, 28);
}

RougeScore RougeOf(const std::string& kind, bool stemmer, const std::string& target,
                   const std::string& prediction) {
  if (kind == "rougeLsum")
    return RougeLines(SplitLinesForRouge(prediction, stemmer), SplitLinesForRouge(target, stemmer));
  const RougeWords answer = SplitForRouge(prediction, stemmer);
  const RougeWords reference = SplitForRouge(target, stemmer);
  if (kind == "rougeL") return RougeSubsequence(answer, reference);
  return RougeRuns(answer, reference, kind == "rouge1" ? 1 : 2);
}

const std::vector<std::string> kRouges = {"rouge1", "rouge2", "rougeL", "rougeLsum"};

TEST_F(GoldenMetricsTest, PublishedRouge) {
  const Json golden = Golden("rouge.json")["published"];
  ASSERT_EQ(golden["cases"].size(), 24u);
  for (const Json& item : golden["cases"]) {
    const RougeScore score =
        RougeOf(item["rouge"], item["use_stemmer"], item["target"], item["prediction"]);
    // Rounded to so many places.
    const double tolerance = 0.5001 * std::pow(10.0, -item["places"].get<int>());
    EXPECT_NEAR(score.precision, item["precision"].get<double>(), tolerance) << item.dump();
    EXPECT_NEAR(score.recall, item["recall"].get<double>(), tolerance) << item.dump();
    EXPECT_NEAR(score.f, item["fmeasure"].get<double>(), tolerance) << item.dump();
  }
}

// Pairs of target and prediction against the means of a golden object, of each kind of ROUGE with
// and without stemmer.
void ExpectMeans(const std::vector<std::pair<std::string, std::string>>& pairs,
                 const Json& golden) {
  std::vector<MeasuredExample> examples;
  for (const auto& [target, prediction] : pairs) examples.push_back(Answered(prediction, {target}));
  for (const bool stemmer : {false, true}) {
    for (const std::string& kind : kRouges) {
      const Json& expected = golden[stemmer ? "stemmer" : "no_stemmer"][kind];
      double precision = 0, recall = 0;
      for (const auto& [target, prediction] : pairs) {
        const RougeScore score = RougeOf(kind, stemmer, target, prediction);
        precision += score.precision / static_cast<double>(pairs.size());
        recall += score.recall / static_cast<double>(pairs.size());
      }
      EXPECT_NEAR(precision, expected["precision"].get<double>(), kTolerance) << kind << stemmer;
      EXPECT_NEAR(recall, expected["recall"].get<double>(), kTolerance) << kind << stemmer;
      EXPECT_NEAR(MetricOf(kind, examples, stemmer), 100 * expected["fmeasure"].get<double>(),
                  kTolerance)
          << kind << stemmer;
    }
  }
}

TEST_F(GoldenMetricsTest, RougeOfThousandPairs) {
  const Json golden = Golden("rouge.json")["large"];
  const std::string target_text = ReadFile(kData + golden["files"][0].get<std::string>());
  const std::string prediction_text = ReadFile(kData + golden["files"][1].get<std::string>());
  const std::vector<std::string> targets = absl::StrSplit(target_text, '\n', absl::SkipEmpty());
  const std::vector<std::string> predictions =
      absl::StrSplit(prediction_text, '\n', absl::SkipEmpty());
  ASSERT_EQ(targets.size(), golden["pairs"].get<size_t>());
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t i = 0; i < targets.size(); ++i) pairs.emplace_back(targets[i], predictions[i]);
  ExpectMeans(pairs, golden["exact_means"]);
  // Each file as one text.
  EXPECT_NEAR(RougeOf("rougeLsum", false, target_text, prediction_text).f,
              golden["whole_file_rougeLsum_fmeasure"].get<double>(), 5e-4);
}

std::string FirstLines(const std::string& document, size_t count) {
  std::string lead;
  for (const auto line : absl::StrSplit(document, '\n')) {
    if (line.find_first_not_of(" \t\r") == absl::string_view::npos) continue;
    if (count-- == 0) break;
    lead += (lead.empty() ? "" : "\n") + std::string(line);
  }
  return lead;
}

TEST_F(GoldenMetricsTest, RougeOfNews) {
  const Json golden = Golden("rouge.json")["xsum_lead"];
  const std::string file = ReadFile(kData + "xsum/test-1000.jsonl");
  std::vector<Json> articles;
  for (const auto line : absl::StrSplit(file, '\n', absl::SkipEmpty()))
    articles.push_back(Json::parse(line.begin(), line.end()));
  for (const size_t lines : {1u, 3u}) {
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const Json& article : articles)
      pairs.emplace_back(article["summary"].get<std::string>(),
                         FirstLines(article["document"], lines));
    ExpectMeans(pairs, golden["mean_over_1000"]["lead_" + std::to_string(lines)]);
  }
  const Json& single = golden["first_200_lead_1"]["cases"];
  ASSERT_EQ(single.size(), 200u);
  for (size_t i = 0; i < single.size(); ++i) {
    for (const bool stemmer : {false, true}) {
      for (const std::string& kind : kRouges) {
        const RougeScore score =
            RougeOf(kind, stemmer, articles[i]["summary"], FirstLines(articles[i]["document"], 1));
        const Json& expected = single[i][stemmer ? "stemmer" : "no_stemmer"][kind];
        EXPECT_NEAR(score.precision, expected[0].get<double>(), kTolerance);
        EXPECT_NEAR(score.recall, expected[1].get<double>(), kTolerance);
        EXPECT_NEAR(score.f, expected[2].get<double>(), kTolerance);
      }
    }
  }
}

}  // namespace
}  // namespace hypermoe
