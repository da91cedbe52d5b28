// Metrics against literal formulas over resamples, and where there is nothing to measure.
#include "runtime/task_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "tests/support/metric_values.h"

namespace hypermoe {
namespace {

using Pairs = std::vector<std::pair<double, double>>;  // answer and reference

std::string AnyAnswer(AnswerKind kind, std::mt19937* random) {
  const auto below = [&](int n) {
    return static_cast<int>((*random)() % static_cast<uint32_t>(n));
  };
  if (kind == AnswerKind::kLabel) return std::to_string(below(4) - 1);
  if (kind == AnswerKind::kScore) return below(6) == 0 ? "" : std::to_string(below(9) / 2.0);
  std::string text;
  for (int words = below(5); words > 0; --words) {
    text += std::vector<std::string>{
        "the ", "big ", "dog ", "Runs. ", "far ", "far\n"}[static_cast<size_t>(below(6))];
  }
  return text;
}

std::vector<MeasuredExample> AnyExamples(AnswerKind kind, size_t count, std::mt19937* random) {
  std::vector<MeasuredExample> examples;
  while (examples.size() < count) {
    std::string reference;
    while (reference.empty() || reference == "-1") reference = AnyAnswer(kind, random);
    examples.push_back(
        Answered(AnyAnswer(kind, random), {reference}, std::to_string(examples.size() / 3)));
    examples.back().loss = static_cast<double>((*random)() % 1000) / 200;
    examples.back().balance_loss = static_cast<double>((*random)() % 1000) / 2000;
  }
  return examples;
}

// Examples that stand there several times are as good as a number that says how often. A group is
// there as a whole, each time as another one.
TEST(TaskMetricsTest, ResamplesAreLikeRepetition) {
  std::mt19937 random(1);
  for (const MetricType& type : AllMetrics()) {
    for (int round = 0; round < 20; ++round) {
      const auto examples = AnyExamples(type.kind, 12, &random);
      std::vector<int32_t> times(examples.size());
      std::vector<MeasuredExample> repeated;
      for (size_t group = 0; group < 4; ++group) {
        const auto repetitions = static_cast<int32_t>(random() % 4);
        for (size_t i = 3 * group; i < 3 * group + 3; ++i) times[i] = repetitions;
        for (int32_t repetition = 0; repetition < repetitions; ++repetition) {
          for (size_t i = 3 * group; i < 3 * group + 3; ++i) {
            repeated.push_back(examples[i]);
            repeated.back().group += "." + std::to_string(repetition);
          }
        }
      }
      const std::string name(type.name);
      // The largest label of all examples is that of the resample too.
      if (name == "macro_f1") {
        const auto top = Answered("2", {"2"});
        auto all = examples;
        all.push_back(top);
        repeated.push_back(top);
        times.push_back(1);
        EXPECT_NEAR(Prepared(name, all)->Value(times), MetricOf(name, repeated), 1e-9);
        continue;
      }
      EXPECT_NEAR(Prepared(name, examples)->Value(times), MetricOf(name, repeated), 1e-9) << name;
    }
  }
}

double MeanOfAll(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double PlainPearson(const std::vector<double>& a, const std::vector<double>& b) {
  const double mean_a = MeanOfAll(a), mean_b = MeanOfAll(b);
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
    ab += (a[i] - mean_a) * (b[i] - mean_b);
  }
  return 100 * ab / std::sqrt(aa * bb);
}

// By counting who is below and who is equal.
std::vector<double> PlainRanks(const std::vector<double>& values) {
  std::vector<double> ranks;
  for (const double value : values) {
    double below = 0, equal = 0;
    for (const double other : values) {
      below += other < value ? 1 : 0;
      equal += other == value ? 1 : 0;
    }
    ranks.push_back(below + (equal + 1) / 2);
  }
  return ranks;
}

TEST(TaskMetricsTest, ScoresAgainstLiteralFormulas) {
  std::mt19937 random(2);
  for (int round = 0; round < 50; ++round) {
    std::vector<double> answers, references;
    std::vector<MeasuredExample> examples, binary;
    double in_order = 0, positives = 0;
    for (int i = 0; i < 15; ++i) {
      answers.push_back(static_cast<double>(random() % 8));
      references.push_back(static_cast<double>(random() % 8) / 4);
      examples.push_back(
          Answered(std::to_string(answers.back()), {std::to_string(references.back())}));
      binary.push_back(Answered(examples.back().answer, {i % 3 == 0 ? "1" : "0"}));
      positives += i % 3 == 0 ? 1 : 0;
    }
    EXPECT_NEAR(MetricOf("pearson", examples), PlainPearson(answers, references), 1e-9);
    EXPECT_NEAR(MetricOf("spearman", examples),
                PlainPearson(PlainRanks(answers), PlainRanks(references)), 1e-9);
    double precision = 0;
    for (size_t i = 0; i < answers.size(); i += 3) {
      double taken = 0, right = 0;
      for (size_t j = 0; j < answers.size(); ++j) {
        if (j % 3 != 0) in_order += answers[i] > answers[j] ? 1 : answers[i] == answers[j] ? .5 : 0;
        taken += answers[j] >= answers[i] ? 1 : 0;
        right += answers[j] >= answers[i] && j % 3 == 0 ? 1 : 0;
      }
      precision += right / taken;
    }
    EXPECT_NEAR(MetricOf("auc_roc", binary), 100 * in_order / (positives * (15 - positives)), 1e-9);
    EXPECT_NEAR(MetricOf("auc_pr", binary), 100 * precision / positives, 1e-9);
  }
}

TEST(TaskMetricsTest, LabelsAgainstLiteralFormulas) {
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<MeasuredExample> examples;
    std::vector<double> answers, references;  // one indicator for each class and example
    double tp = 0, fp = 0, fn = 0, right = 0;
    for (int i = 0; i < 20; ++i) {
      const int answer = static_cast<int>(random() % 3) - 1, reference = i % 2;
      examples.push_back(Answered(std::to_string(answer), {std::to_string(reference)}));
      right += answer == reference ? 1 : 0;
      const int taken = answer == -1 ? 1 - reference : answer;
      tp += taken == 1 && reference == 1 ? 1 : 0;
      fp += taken == 1 && reference == 0 ? 1 : 0;
      fn += taken == 0 && reference == 1 ? 1 : 0;
    }
    EXPECT_NEAR(MetricOf("accuracy", examples), 5 * right, 1e-9);
    EXPECT_NEAR(MetricOf("f1", examples), 100 * 2 * tp / (2 * tp + fp + fn), 1e-9);
    // Matthews' correlation is sum over classes of covariances, over the root of those of
    // variances.
    double ab = 0, aa = 0, bb = 0;
    for (const std::string label : {"-1", "0", "1"}) {
      double share_a = 0, share_b = 0;
      for (const MeasuredExample& example : examples) {
        share_a += example.answer == label ? 0.05 : 0;
        share_b += example.references[0] == label ? 0.05 : 0;
      }
      for (const MeasuredExample& example : examples) {
        const double a = (example.answer == label ? 1 : 0) - share_a;
        const double b = (example.references[0] == label ? 1 : 0) - share_b;
        ab += a * b;
        aa += a * a;
        bb += b * b;
      }
    }
    EXPECT_NEAR(MetricOf("matthews", examples), aa == 0 ? 0 : 100 * ab / std::sqrt(aa * bb), 1e-9);
  }
}

TEST(TaskMetricsTest, TwoClassesAreMatthewsOwnFormula) {
  std::vector<MeasuredExample> examples;
  const auto add = [&](const char* answer, const char* reference, int times) {
    for (int i = 0; i < times; ++i) examples.push_back(Answered(answer, {reference}));
  };
  add("1", "1", 6);
  add("0", "0", 3);
  add("1", "0", 1);
  add("0", "1", 2);
  EXPECT_NEAR(MetricOf("matthews", examples), 100 * (6 * 3 - 1 * 2) / std::sqrt(7. * 8 * 4 * 5),
              1e-9);
}

TEST(TaskMetricsTest, QuestionsCountOnceHoweverManyAnswersTheyHave) {
  const std::vector<MeasuredExample> examples = {
      Answered("1", {"1"}, "a"), Answered("0", {"0"}, "b"), Answered("0", {"1"}, "a"),
      Answered("1", {"1"}, ""), Answered("0", {"1"}, "")};
  EXPECT_DOUBLE_EQ(MetricOf("question_match", examples), 50);  // b and the fourth
  EXPECT_DOUBLE_EQ(MetricOf("group_accuracy", examples), 62.5);
  // Without its wrong answer, question a is right.
  EXPECT_DOUBLE_EQ(Prepared("question_match", examples)->Value({1, 1, 0, 1, 1}), 75);
}

TEST(TaskMetricsTest, NoExampleIsZero) {
  for (const MetricType& type : AllMetrics()) {
    EXPECT_EQ(MetricOf(std::string(type.name), {}), 0) << type.name;
    std::mt19937 random(4);
    const auto examples = AnyExamples(type.kind, 3, &random);
    EXPECT_EQ(Prepared(std::string(type.name), examples)->Value({0, 0, 0}), 0) << type.name;
  }
}

TEST(TaskMetricsTest, AllInvalid) {
  const std::vector<MeasuredExample> labels = {Answered("-1", {"1"}), Answered("-1", {"0"}),
                                               Answered("-1", {"1"})};
  for (const char* name : {"accuracy", "f1", "macro_f1", "matthews", "question_match"})
    EXPECT_EQ(MetricOf(name, labels), 0) << name;
  const std::vector<MeasuredExample> scores = {Answered("", {"1"}), Answered("", {"2.5"})};
  for (const char* name : {"pearson", "spearman", "auc_roc", "auc_pr"})
    EXPECT_EQ(MetricOf(name, scores), 0) << name;
}

TEST(TaskMetricsTest, InvalidScoresAreMinusOne) {
  const std::vector<MeasuredExample> invalid = {Answered("", {"1"}), Answered("2", {"2"}),
                                                Answered("nan", {"3"}), Answered("1e999", {"4"})};
  const std::vector<MeasuredExample> minus_one = {Answered("-1", {"1"}), Answered("2", {"2"}),
                                                  Answered("-1", {"3"}), Answered("-1", {"4"})};
  for (const char* name : {"pearson", "spearman"})
    EXPECT_DOUBLE_EQ(MetricOf(name, invalid), MetricOf(name, minus_one)) << name;
}

TEST(TaskMetricsTest, NoVariance) {
  // 0.1 three times has a variance of 1e-34 in double.
  const std::vector<MeasuredExample> same = {Answered("0.1", {"1"}), Answered("0.1", {"2"}),
                                             Answered("0.1", {"4"})};
  for (const char* name : {"pearson", "spearman"}) EXPECT_EQ(MetricOf(name, same), 0) << name;
  const std::vector<MeasuredExample> one_label = {Answered("1", {"1"}), Answered("1", {"1"})};
  EXPECT_EQ(MetricOf("matthews", one_label), 0);
  EXPECT_EQ(MetricOf("f1", {Answered("0", {"0"})}), 0);
  // Squares beyond a double's range, at either end.
  for (const char* tiny_or_huge : {"1e-300", "1e300"}) {
    const double value = MetricOf("pearson", {Answered(tiny_or_huge, {"1"}), Answered("0", {"0"})});
    EXPECT_TRUE(std::isfinite(value)) << value;
  }
}

TEST(TaskMetricsTest, MissingTextsAreWrongWhereEmptyOnesAreRight) {
  MeasuredExample missing = Answered("", {"the"});  // of which nothing is left
  EXPECT_EQ(MetricOf("exact_match", {missing}), 100);
  EXPECT_EQ(MetricOf("token_f1", {missing}), 0);  // no word is common
  missing.missing = true;
  EXPECT_EQ(MetricOf("exact_match", {missing}), 0);
  missing.references = {""};
  EXPECT_EQ(MetricOf("text_accuracy", {missing}), 0);
}

TEST(TaskMetricsTest, Perplexities) {
  std::vector<MeasuredExample> blocks(2);
  blocks[0].loss = std::log(10.0);
  blocks[1].loss = std::log(1000.0);
  blocks[0].balance_loss = std::log(4.0);
  EXPECT_NEAR(MetricOf("perplexity", blocks), 100, 1e-9);
  EXPECT_NEAR(MetricOf("authors_perplexity", blocks), 200, 1e-9);
  constexpr double kMax = std::numeric_limits<double>::max();
  for (const double loss :
       {1e9, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    EXPECT_EQ(Perplexity(loss), kMax);
}

TEST(TaskMetricsTest, NamesAreTheirOwn) {
  for (const MetricType& type : AllMetrics()) EXPECT_EQ(FindMetric(type.name), &type);
  EXPECT_EQ(FindMetric("recall"), nullptr);
}

}  // namespace
}  // namespace hypermoe
