#include "runtime/bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/metric_values.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;

std::vector<PreparedMetrics> Runs(const std::string& task,
                                  const std::vector<std::vector<MeasuredExample>>& files) {
  std::vector<PreparedMetrics> runs;
  for (const auto& examples : files) runs.emplace_back(*FindTask(task), examples, MetricOptions());
  return runs;
}

// The first `right` of `count` answers are right.
std::vector<MeasuredExample> Labels(size_t right, size_t count) {
  std::vector<MeasuredExample> examples;
  for (size_t i = 0; i < count; ++i) examples.push_back(Answered(i < right ? "1" : "0", {"1"}));
  return examples;
}

TEST(BootstrapTest, UnitsAreGroupsOrExamples) {
  const std::vector<MeasuredExample> examples = {Answered("1", {"1"}, "b"),
                                                 Answered("1", {"1"}, "a"), Answered("1", {"1"}),
                                                 Answered("1", {"1"}, "b"), Answered("1", {"1"})};
  EXPECT_THAT(DrawnTogether(examples),
              ElementsAre(ElementsAre(0, 3), ElementsAre(1), ElementsAre(2), ElementsAre(4)));
}

// The share of right answers in a resample follows the binomial distribution.
TEST(BootstrapTest, IntervalOfShareIsBinomial) {
  constexpr int kCount = 50;
  const auto examples = Labels(30, kCount);
  BootstrapOptions options;
  options.resamples = 20000;
  const auto intervals =
      DifferenceIntervals(Runs("sst2", {examples}), Runs("sst2", {Labels(0, kCount)}),
                          DrawnTogether(examples), options);
  ASSERT_EQ(intervals.size(), 1u);
  double below = 0;
  int low = -1, high = -1;
  for (int right = 0; right <= kCount; ++right) {
    below += std::exp(std::lgamma(kCount + 1) - std::lgamma(right + 1) -
                      std::lgamma(kCount - right + 1) + right * std::log(0.6) +
                      (kCount - right) * std::log(0.4));
    if (low < 0 && below >= 0.025) low = right;
    if (high < 0 && below >= 0.975) high = right;
  }
  EXPECT_NEAR(intervals[0].low, 2 * low, 2.01);  // one more or less of 50
  EXPECT_NEAR(intervals[0].high, 2 * high, 2.01);
}

TEST(BootstrapTest, EqualRunsDifferByNothing) {
  const auto examples = Labels(7, 10);
  const auto intervals =
      DifferenceIntervals(Runs("sst2", {examples, examples}), Runs("sst2", {examples}),
                          DrawnTogether(examples), BootstrapOptions{100});
  EXPECT_EQ(intervals[0].low, 0);
  EXPECT_EQ(intervals[0].high, 0);
}

TEST(BootstrapTest, SeedsAreAveragedAndSeedOfDrawsDecides) {
  const auto all = Labels(40, 40), half = Labels(20, 40), none = Labels(0, 40);
  const auto units = DrawnTogether(all);
  const auto interval = [&](const std::vector<std::vector<MeasuredExample>>& files, uint64_t seed) {
    BootstrapOptions options{500, seed};
    return DifferenceIntervals(Runs("sst2", files), Runs("sst2", {none}), units, options)[0];
  };
  // Always right and always wrong: right half of the time, whatever is drawn.
  EXPECT_DOUBLE_EQ(interval({all, none}, 1).low, 50);
  EXPECT_DOUBLE_EQ(interval({all, none}, 1).high, 50);
  EXPECT_EQ(interval({half}, 1).low, interval({half}, 1).low);
  EXPECT_EQ(interval({half}, 1).high, interval({half}, 1).high);
  EXPECT_LT(interval({half}, 1).low, 50);
  EXPECT_GT(interval({half}, 1).high, 50);
}

// Answers of a question are drawn together: two questions of five answers each.
TEST(BootstrapTest, GroupsAreDrawnWhole) {
  std::vector<MeasuredExample> right, wrong;
  for (int i = 0; i < 10; ++i) {
    right.push_back(Answered("1", {"1"}, i < 5 ? "a" : "b"));
    wrong.push_back(Answered(i < 5 ? "1" : "0", {"1"}, i < 5 ? "a" : "b"));
  }
  const auto intervals = DifferenceIntervals(Runs("multirc", {right}), Runs("multirc", {wrong}),
                                             DrawnTogether(right), BootstrapOptions{1000});
  ASSERT_EQ(intervals.size(), 2u);  // f1 and the questions' exact match
  EXPECT_EQ(intervals[1].low, 0);
  EXPECT_EQ(intervals[1].high, 100);  // both times question b, a quarter of the time
}

}  // namespace
}  // namespace hypermoe
