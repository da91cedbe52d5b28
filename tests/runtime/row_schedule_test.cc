#include "runtime/row_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace hypermoe {
namespace {

// Follows rows 0 to `rows`; expects every prefix to hold each source's share to within one row, and
// the draws of each source to be counted.
void ExpectExactShares(const std::vector<double>& weights, int64_t rows) {
  const RowSchedule schedule(weights);
  double sum = 0;
  for (const double weight : weights) sum += weight;
  std::vector<int64_t> drawn(weights.size(), 0);
  for (int64_t row = 0; row < rows; ++row) {
    const RowSchedule::Draw draw = schedule.At(row);
    ASSERT_EQ(draw.number, drawn[static_cast<size_t>(draw.source)]++) << row;
    for (size_t i = 0; i < weights.size(); ++i) {
      const double exact = static_cast<double>(row + 1) * weights[i] / sum;
      ASSERT_LT(std::abs(static_cast<double>(drawn[i]) - exact), 1.0)
          << "source " << i << " of weight " << weights[i] << " after " << row + 1 << " rows";
    }
  }
}

TEST(RowScheduleTest, OneSourceHasEveryRow) {
  const RowSchedule schedule({0.3});
  EXPECT_EQ(schedule.period(), 1);
  EXPECT_EQ(schedule.At(12345678901).source, 0);
  EXPECT_EQ(schedule.At(12345678901).number, 12345678901);
}

TEST(RowScheduleTest, PeriodsAreAsShortAsTheWeightsAllow) {
  EXPECT_EQ(RowSchedule({2, 1}).period(), 3);
  EXPECT_EQ(RowSchedule({20, 10}).period(), 3);
  EXPECT_EQ(RowSchedule({0.7, 0.2, 0.1}).rows_of_period(), (std::vector<int64_t>{7, 2, 1}));
  EXPECT_EQ(RowSchedule({1.0 / 3, 2.0 / 3}).period(), 3);
  EXPECT_EQ(RowSchedule({1, 999999}).period(), 1000000);
  EXPECT_EQ(RowSchedule({1e15, 1e15, 1e15, 1e15}).period(), 4);
  EXPECT_EQ(RowSchedule({1, std::sqrt(2.0)}).period(), RowSchedule::kMaxPeriod);
}

TEST(RowScheduleTest, EveryPrefixHoldsEveryShareToWithinOneRow) {
  ExpectExactShares({1, 1}, 100);
  ExpectExactShares({2, 1}, 100);
  ExpectExactShares({0.9, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01}, 1000);
  ExpectExactShares({13, 8, 5, 3, 2, 1}, 1000);
  ExpectExactShares({1, 3, 1000}, 5000);
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<double> weights(1 + random() % 8);
    for (double& weight : weights) weight = static_cast<double>(1 + random() % 100);
    ExpectExactShares(weights, 2000);
  }
}

TEST(RowScheduleTest, WeightsThatNoPeriodExpressesAreRoundedFinely) {
  ExpectExactShares({1, std::sqrt(2.0), 3.14159265358979}, 20000);
  const RowSchedule schedule({1, std::sqrt(2.0), 1e-5});
  int64_t rows = 0;
  for (const int64_t of_source : schedule.rows_of_period()) rows += of_source;
  EXPECT_EQ(rows, schedule.period());
  EXPECT_EQ(schedule.rows_of_period()[2], 4);  // 1e-5 / 2.414 of 1048576 is 4.34
}

// What a run computes depends on it; a change breaks the resuming of runs.
TEST(RowScheduleTest, OrderNeverChanges) {
  const RowSchedule schedule({2, 1, 3});
  std::vector<int64_t> sources;
  for (int64_t row = 0; row < 12; ++row) sources.push_back(schedule.At(row).source);
  EXPECT_EQ(sources, (std::vector<int64_t>{2, 0, 2, 0, 1, 2, 2, 0, 2, 0, 1, 2}));
}

}  // namespace
}  // namespace hypermoe
