#include "runtime/learning_rate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace hypermoe {
namespace {

OptimizerConfig Config(int64_t warmup,
                       OptimizerConfig::Schedule schedule = OptimizerConfig::cosine) {
  OptimizerConfig config;
  config.set_learning_rate(1.0);
  config.set_min_learning_rate(0.1);
  config.set_warmup_steps(warmup);
  config.set_schedule(schedule);
  return config;
}

TEST(LearningRateTest, RisesLinearlyAndFallsAsACosine) {
  const OptimizerConfig config = Config(4);
  EXPECT_DOUBLE_EQ(LearningRate(config, 0, 105), 0.2);
  EXPECT_DOUBLE_EQ(LearningRate(config, 3, 105), 0.8);
  EXPECT_DOUBLE_EQ(LearningRate(config, 4, 105), 1.0);
  EXPECT_NEAR(LearningRate(config, 54, 105), 0.55, 1e-12);  // half way down
  EXPECT_DOUBLE_EQ(LearningRate(config, 104, 105), 0.1);
}

TEST(LearningRateTest, CosineIsTheDefault) {
  EXPECT_EQ(OptimizerConfig().schedule(), OptimizerConfig::cosine);
}

TEST(LearningRateTest, LinearIsHalfWayDownInTheMiddleAndLowAtTheLastStep) {
  const OptimizerConfig config = Config(4, OptimizerConfig::linear);
  EXPECT_DOUBLE_EQ(LearningRate(config, 4, 105), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(config, 29, 105), 0.775);
  EXPECT_DOUBLE_EQ(LearningRate(config, 54, 105), 0.55);
  EXPECT_DOUBLE_EQ(LearningRate(config, 104, 105), 0.1);
}

TEST(LearningRateTest, InverseSquareRootIsTheTransformersFormulaDownToTheFloor) {
  const OptimizerConfig config = Config(3, OptimizerConfig::inverse_sqrt);
  // Eq. (3) of arXiv:1706.03762 with 4 steps of warm-up, times sqrt(4) so that its peak is 1.
  for (int64_t number = 1; number <= 400; ++number) {
    const double n = static_cast<double>(number);
    const double expected = 2.0 * std::min(1 / std::sqrt(n), n / std::pow(4.0, 1.5));
    EXPECT_NEAR(LearningRate(config, number - 1, 10), expected, 1e-12) << number;
  }
  EXPECT_DOUBLE_EQ(LearningRate(config, 15, 10), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(config, 1000, 10), 0.1);
}

TEST(LearningRateTest, ConstantStaysAtThePeak) {
  const OptimizerConfig config = Config(4, OptimizerConfig::constant);
  EXPECT_DOUBLE_EQ(LearningRate(config, 3, 10), 0.8);
  for (const int64_t step : {4, 5, 9, 1000}) EXPECT_EQ(LearningRate(config, step, 10), 1.0);
}

TEST(LearningRateTest, FlatWarmupIsThePeak) {
  OptimizerConfig config = Config(4);
  config.set_warmup(OptimizerConfig::flat);
  for (const int64_t step : {0, 3, 4}) EXPECT_EQ(LearningRate(config, step, 105), 1.0);
  EXPECT_NEAR(LearningRate(config, 54, 105), 0.55, 1e-12);
}

// As configs/run.proto says it can be had; the length of the run does not matter.
TEST(LearningRateTest, OfT5) {
  OptimizerConfig config = Config(9999, OptimizerConfig::inverse_sqrt);
  config.set_warmup(OptimizerConfig::flat);
  config.set_learning_rate(0.01);
  config.set_min_learning_rate(0);
  for (const int64_t step : {1, 2, 9999, 10000, 10001, 550000, 10000000}) {
    const double expected = 1 / std::sqrt(std::max(static_cast<double>(step), 10000.0));
    EXPECT_NEAR(LearningRate(config, step - 1, 550000), expected, 1e-15);
  }
}

TEST(LearningRateTest, ShortRuns) {
  for (const auto schedule : {OptimizerConfig::cosine, OptimizerConfig::linear,
                              OptimizerConfig::inverse_sqrt, OptimizerConfig::constant}) {
    SCOPED_TRACE(OptimizerConfig::Schedule_Name(schedule));
    EXPECT_DOUBLE_EQ(LearningRate(Config(0, schedule), 0, 1), 1.0);
    EXPECT_DOUBLE_EQ(LearningRate(Config(1, schedule), 0, 1), 0.5);
  }
}

}  // namespace
}  // namespace hypermoe
