#include "runtime/validation_history.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hypermoe {
namespace {

TEST(ValidationHistoryTest, TheFirstOfEqualValuesIsTheBest) {
  ValidationHistory history(/*lower_is_better=*/false);
  EXPECT_EQ(history.best_step(), 0);
  EXPECT_EQ(history.since_best(), 0);
  history.Add(10, 50);
  history.Add(20, 60);
  history.Add(30, 60);
  history.Add(40, 55);
  EXPECT_EQ(history.best_step(), 20);
  EXPECT_EQ(history.best_value(), 60);
  EXPECT_EQ(history.since_best(), 2);
  history.Add(50, 60.001);
  EXPECT_EQ(history.best_step(), 50);
  EXPECT_EQ(history.since_best(), 0);
}

TEST(ValidationHistoryTest, LowerMayBeBetterAndNaNNeverIs) {
  ValidationHistory history(/*lower_is_better=*/true);
  history.Add(10, std::nan(""));
  EXPECT_EQ(history.best_step(), 0);
  EXPECT_EQ(history.since_best(), 1);
  history.Add(20, 7);
  history.Add(30, std::nan(""));
  history.Add(40, 6);
  EXPECT_EQ(history.best_step(), 40);
  EXPECT_EQ(history.since_best(), 0);
}

// A run that goes on from its end validates once more.
TEST(ValidationHistoryTest, AStepCountsOnce) {
  ValidationHistory history(/*lower_is_better=*/false);
  history.Add(10, 50);
  history.Add(20, 40);
  history.Add(20, 40);
  EXPECT_EQ(history.since_best(), 1);
}

}  // namespace
}  // namespace hypermoe
