#include "parallel/token_dispatcher.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/gradient_check.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<Communicator> Self() { return NewSelfCommunicator("expert"); }

std::vector<int64_t> Values(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}

at::Tensor Ids(const std::vector<int64_t>& ids) { return at::tensor(ids, at::kLong); }

TEST(TokenDispatcherTest, PlanIsAStableSortByExpert) {
  const TokenDispatcher dispatcher(Self(), 4);
  const auto plan = dispatcher.MakePlan(Ids({2, 0, 3, 0, 2}));
  EXPECT_THAT(Values(plan->order_T), ElementsAre(1, 3, 0, 4, 2));
  EXPECT_THAT(Values(plan->inverse_T), ElementsAre(2, 0, 4, 1, 3));
  EXPECT_FALSE(plan->sorted);
  EXPECT_THAT(plan->rows_per_expert, ElementsAre(2, 0, 2, 1));
  EXPECT_THAT(plan->rows_per_local_expert, ElementsAre(2, 0, 2, 1));
  EXPECT_THAT(plan->send_rows, ElementsAre(5));
  EXPECT_THAT(plan->recv_rows, ElementsAre(5));
  EXPECT_EQ(plan->num_tokens, 5);
  EXPECT_EQ(plan->num_received, 5);
}

TEST(TokenDispatcherTest, NoTokensMakeAnEmptyPlan) {
  const TokenDispatcher dispatcher(Self(), 3);
  const auto plan = dispatcher.MakePlan(Ids({}));
  EXPECT_THAT(plan->rows_per_expert, ElementsAre(0, 0, 0));
  EXPECT_EQ(plan->num_received, 0);
  const at::Tensor none_TD = at::arange(0, at::kDouble).view({0, 4});
  EXPECT_EQ(dispatcher.Dispatch(dispatcher.Permute(none_TD, plan), plan).sizes(), none_TD.sizes());
}

TEST(TokenDispatcherTest, MovesThatChangeNothingCopyNothing) {
  const TokenDispatcher dispatcher(Self(), 3);
  const at::Tensor x_TD = at::arange(8, at::kDouble).view({4, 2});
  const auto sorted = dispatcher.MakePlan(Ids({0, 1, 1, 2}));
  EXPECT_TRUE(sorted->sorted);
  EXPECT_EQ(dispatcher.Permute(x_TD, sorted).const_data_ptr(), x_TD.const_data_ptr());
  const auto mixed = dispatcher.MakePlan(Ids({1, 0, 1, 2}));
  EXPECT_NE(dispatcher.Permute(x_TD, mixed).const_data_ptr(), x_TD.const_data_ptr());
  EXPECT_EQ(dispatcher.Dispatch(x_TD, mixed).const_data_ptr(), x_TD.const_data_ptr());
  EXPECT_EQ(dispatcher.Combine(x_TD, mixed).const_data_ptr(), x_TD.const_data_ptr());
}

TEST(TokenDispatcherTest, GradientsMatchDifferences) {
  const TokenDispatcher dispatcher(Self(), 3);
  const auto plan = dispatcher.MakePlan(Ids({2, 0, 1, 0}));
  // Squares, so that a gradient that went to the wrong row shows.
  const auto there_and_back = [&](std::vector<at::Tensor> inputs) {
    const at::Tensor sorted_TD = dispatcher.Permute(inputs[0], plan);
    const at::Tensor rows_RD = dispatcher.Dispatch(sorted_TD * sorted_TD, plan);
    return dispatcher.Unpermute(dispatcher.Combine(rows_RD * inputs[1], plan), plan);
  };
  const at::Tensor x_TD = at::arange(12, at::kDouble).sin().view({4, 3}).set_requires_grad(true);
  const at::Tensor scale_RD =
      at::arange(12, at::kDouble).cos().view({4, 3}).set_requires_grad(true);
  EXPECT_TRUE(GradientsMatchDifferences(there_and_back, {x_TD, scale_RD}));
}

TEST(TokenDispatcherTest, PermuteTakesStridedInput) {
  const TokenDispatcher dispatcher(Self(), 2);
  const auto plan = dispatcher.MakePlan(Ids({1, 0, 1}));
  const at::Tensor x_TD = at::arange(6, at::kFloat).view({2, 3}).t();
  EXPECT_TRUE(at::equal(dispatcher.Permute(x_TD, plan), x_TD.index_select(0, plan->order_T)));
}

TEST(TokenDispatcherTest, BadInputIsNamed) {
  const TokenDispatcher dispatcher(Self(), 2);
  try {
    dispatcher.MakePlan(Ids({0, 1, 2}));
    ADD_FAILURE();
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(),
                HasSubstr("expert id 2 of token 2 is outside [0, 2)"));
  }
  EXPECT_THROW(dispatcher.MakePlan(Ids({-1})), c10::Error);
  EXPECT_THROW(dispatcher.MakePlan(at::arange(2, at::kDouble)), c10::Error);
  EXPECT_THROW(dispatcher.MakePlan(Ids({0, 1}).view({1, 2})), c10::Error);
  const auto plan = dispatcher.MakePlan(Ids({0, 1}));
  EXPECT_THROW(dispatcher.Permute(at::arange(3, at::kDouble), plan), c10::Error);
  EXPECT_THROW(TokenDispatcher(Self(), 0), c10::Error);
}

// The checker itself: it must see a gradient that is wrong.
TEST(GradientsMatchDifferencesTest, SeesAWrongGradient) {
  const auto half_a_gradient = [](std::vector<at::Tensor> inputs) {
    return inputs[0] * inputs[0].detach();  // x^2, but autograd is told half of it
  };
  const at::Tensor x = at::arange(1, 4, at::kDouble).set_requires_grad(true);
  EXPECT_FALSE(GradientsMatchDifferences(half_a_gradient, {x}));
  EXPECT_TRUE(GradientsMatchDifferences([](auto inputs) { return inputs[0] * inputs[0]; }, {x}));
}

}  // namespace
}  // namespace hypermoe
