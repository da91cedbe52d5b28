#include "runtime/learning_rate.h"

#include <gtest/gtest.h>

namespace hypermoe {
namespace {

OptimizerConfig Config(int64_t warmup) {
  OptimizerConfig config;
  config.set_learning_rate(1.0);
  config.set_min_learning_rate(0.1);
  config.set_warmup_steps(warmup);
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

TEST(LearningRateTest, ShortRuns) {
  EXPECT_DOUBLE_EQ(LearningRate(Config(0), 0, 1), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(Config(1), 0, 1), 0.5);
}

}  // namespace
}  // namespace hypermoe
