#include "runtime/expert_watch.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hypermoe {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t kExperts = 24;

// What the watch says in each of `steps` steps in which only `idle` (layer, expert) get no token.
class ExpertWatchTest : public testing::Test {
 protected:
  std::vector<std::string> Observe(int steps, const std::vector<std::pair<int, int>>& idle) {
    at::Tensor tokens_LN = at::full({2, kExperts}, 7, at::kLong);
    for (const auto& [layer, expert] : idle) tokens_LN[layer][expert] = 0;
    std::vector<std::string> said;
    for (int step = 0; step < steps; ++step) {
      const std::string text = watch_.Observe(tokens_LN);
      if (!text.empty()) said.push_back(text);
    }
    return said;
  }
  ExpertWatch watch_{{1, 3}};
};

TEST_F(ExpertWatchTest, NamesAnExpertAfterAHundredIdleStepsAndOnlyOnce) {
  EXPECT_THAT(Observe(kDeadAfterSteps - 1, {{1, 5}}), testing::IsEmpty());
  EXPECT_THAT(
      Observe(1, {{1, 5}}),
      testing::ElementsAre("expert 5 of block 3 got no token in the last 100 steps: raise "
                           "model.balance_loss.coefficient or model.router_jitter, or lower "
                           "model.num_experts"));
  EXPECT_THAT(Observe(3 * kDeadAfterSteps, {{1, 5}}), testing::IsEmpty());
}

TEST_F(ExpertWatchTest, OneTokenStartsTheCountAnew) {
  EXPECT_THAT(Observe(kDeadAfterSteps - 1, {{0, 0}}), testing::IsEmpty());
  Observe(1, {});
  EXPECT_THAT(Observe(kDeadAfterSteps - 1, {{0, 0}}), testing::IsEmpty());
  EXPECT_THAT(Observe(1, {{0, 0}}),
              testing::ElementsAre(HasSubstr("expert 0 of block 1 got no token")));
  Observe(1, {});
  EXPECT_THAT(Observe(kDeadAfterSteps, {{0, 0}}), testing::SizeIs(1));  // died again
}

TEST_F(ExpertWatchTest, SeveralThatDieTogetherAreOneLine) {
  const auto said = Observe(kDeadAfterSteps, {{0, 2}, {0, 3}, {1, 23}});
  ASSERT_THAT(said, testing::SizeIs(1));
  EXPECT_THAT(said[0], HasSubstr("3 experts got no token in the last 100 steps (block 1: 2, 3; "
                                 "block 3: 23): raise"));
}

TEST_F(ExpertWatchTest, OneThatDiesLaterIsNamedAlone) {
  Observe(50, {{0, 2}});
  const auto said = Observe(kDeadAfterSteps, {{0, 2}, {0, 3}});
  ASSERT_THAT(said, testing::SizeIs(2));
  EXPECT_THAT(said[0], HasSubstr("expert 2 of block 1"));
  EXPECT_THAT(said[1], HasSubstr("expert 3 of block 1"));
}

TEST_F(ExpertWatchTest, TheListOfManyIsCut) {
  std::vector<std::pair<int, int>> idle;
  for (int expert = 1; expert < kExperts; ++expert) idle.push_back({0, expert});
  const auto said = Observe(kDeadAfterSteps, idle);
  ASSERT_THAT(said, testing::SizeIs(1));
  EXPECT_THAT(said[0], HasSubstr("23 experts got no token"));
  EXPECT_THAT(said[0], HasSubstr("15, 16 and 7 more): raise"));
  EXPECT_THAT(said[0], Not(HasSubstr("17")));
}

TEST(ExpertWatchOfADenseModelTest, SaysNothing) {
  ExpertWatch watch({});
  for (int step = 0; step < 2 * kDeadAfterSteps; ++step) {
    EXPECT_EQ(watch.Observe(at::full({0, 0}, 0, at::kLong)), "");
  }
}

}  // namespace
}  // namespace hypermoe
