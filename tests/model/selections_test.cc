#include "model/selections.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <array>
#include <optional>

namespace hypermoe {
namespace {

TEST(SelectionsTest, NumbersEverySetOnce) {
  for (const auto& [experts, top_k, count] : {std::array<int64_t, 3>{6, 1, 6},
                                              {6, 2, 15},
                                              {7, 3, 35},
                                              {5, 5, 1},
                                              {64, 64, 1},
                                              {64, 2, 2016}}) {
    const Selections selections(experts, top_k);
    ASSERT_EQ(selections.count(), count);
    const at::Tensor all = at::arange(count, at::kLong);
    const at::Tensor members = selections.Members(all);
    EXPECT_EQ(members.min().item<int64_t>(), 0);
    EXPECT_EQ(members.max().item<int64_t>(), experts - 1);
    if (top_k > 1) {
      EXPECT_GT(members.diff(1, 1).min().item<int64_t>(), 0) << "ascending";
    }
    EXPECT_TRUE(selections.NumberOf(members).equal(all));
    // In any order.
    EXPECT_TRUE(selections.NumberOf(members.flip(1)).equal(all));
  }
}

TEST(SelectionsTest, TooManyHaveNoNumber) {
  EXPECT_EQ(NumSelections(4096, 1), 4096);
  EXPECT_EQ(NumSelections(64, 62), 2016);
  EXPECT_EQ(NumSelections(64, 64), 1);
  EXPECT_EQ(NumSelections(64, 8), std::nullopt);
  EXPECT_EQ(NumSelections(4096, 63), std::nullopt);
  EXPECT_THROW(Selections(64, 8), c10::Error);
}

TEST(SelectionsTest, NoTokens) {
  EXPECT_EQ(Selections(8, 2).NumberOf(at::empty({0, 2}, at::kLong)).numel(), 0);
}

}  // namespace
}  // namespace hypermoe
