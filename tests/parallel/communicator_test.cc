#include "parallel/communicator.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The message of the CommError that `action` throws.
template <typename Action>
std::string CommErrorOf(Action action) {
  try {
    action();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no CommError";
}

TEST(SelfCommunicatorTest, EveryCollectiveReturnsItsOwnInput) {
  const auto self = NewSelfCommunicator("alone");
  EXPECT_EQ(self->rank(), 0);
  EXPECT_EQ(self->size(), 1);
  const at::Tensor values = at::arange(6, at::kDouble).view({3, 2});
  const at::Tensor copy = values.clone();
  self->AllReduceSum(values);
  self->AllReduceMax(values);
  self->Broadcast(values, 0);
  self->Barrier();
  EXPECT_TRUE(at::equal(values, copy));
  EXPECT_TRUE(at::equal(self->AllToAllRows(values, {3}, {3}), copy));
  EXPECT_TRUE(at::equal(self->AllToAllEqualRows(values), copy));
  EXPECT_THAT(self->AllToAllCounts({4, 5}), ElementsAre(4, 5));
  StartedExchange started = self->StartAllToAllRows(values, {3}, {3});
  EXPECT_TRUE(started.pending->Test());
  EXPECT_TRUE(at::equal(started.received, copy));
  EXPECT_THAT(self->AllGatherText("abc"), ElementsAre("abc"));
  EXPECT_EQ(self->Split("part", 3, 0)->name(), "part");
}

TEST(SelfCommunicatorTest, EmptyTensorsAreLegal) {
  const auto self = NewSelfCommunicator("alone");
  self->AllReduceSum(at::empty({0}, at::kFloat));
  self->Broadcast(at::empty({0, 4}, at::kByte), 0);
  EXPECT_EQ(self->AllToAllRows(at::empty({0, 4}, at::kFloat), {0}, {0}).sizes(),
            (std::vector<int64_t>{0, 4}));
  EXPECT_THAT(self->AllToAllCounts({}), ElementsAre());
}

TEST(SelfCommunicatorTest, CountsCallsButNoBytes) {
  const auto self = NewSelfCommunicator("alone");
  const at::Tensor values = at::ones({3, 2}, at::kFloat);
  self->AllReduceSum(values);
  self->AllReduceMax(values);
  self->AllToAllRows(values, {3}, {3});
  self->AllGatherText("abc");
  EXPECT_EQ(self->traffic(Collective::kAllReduce).calls, 2);
  EXPECT_EQ(self->traffic(Collective::kAllToAll).calls, 1);
  EXPECT_EQ(self->traffic(Collective::kBarrier).calls, 0);
  for (int kind = 0; kind < kNumCollectives; ++kind) {
    EXPECT_EQ(self->traffic(static_cast<Collective>(kind)).bytes, 0);
  }
}

TEST(CommunicatorTest, BadArgumentsAreNamed) {
  const auto self = NewSelfCommunicator("alone");
  const at::Tensor rows = at::ones({3, 2}, at::kFloat);
  EXPECT_THAT(
      CommErrorOf([&] { self->AllReduceSum(rows.t()); }),
      AllOf(HasSubstr("AllReduceSum in group 'alone' (rank 0 of 1)"), HasSubstr("contiguous")));
  EXPECT_THAT(CommErrorOf([&] { self->AllReduceSum(at::Tensor()); }), HasSubstr("defined"));
  EXPECT_THAT(CommErrorOf([&] { self->AllReduceSum(at::empty({2}, at::kMeta)); }),
              HasSubstr("the tensor is on meta, but this group's transport takes cpu alone"));
  EXPECT_THAT(CommErrorOf([&] { self->AllReduceSum(rows.to(at::kBFloat16)); }),
              HasSubstr("BFloat16 is not one of float32, float64, int64"));
  EXPECT_THAT(CommErrorOf([&] { self->AllReduceSum(rows.to(at::kByte)); }), HasSubstr("Byte"));
  EXPECT_THAT(CommErrorOf([&] { self->AllReduceMax(rows.to(at::kInt)); }), HasSubstr("Int"));
  EXPECT_THAT(CommErrorOf([&] { self->Broadcast(rows.to(at::kHalf), 0); }), HasSubstr("Half"));
  EXPECT_THAT(CommErrorOf([&] { self->Broadcast(rows, 1); }), HasSubstr("root 1"));
  EXPECT_THAT(CommErrorOf([&] {
                self->AllToAllRows(rows, {2, 1}, {3});
              }),
              HasSubstr("send_rows has 2 entries"));
  EXPECT_THAT(CommErrorOf([&] { self->AllToAllRows(rows, {3}, {}); }),
              HasSubstr("recv_rows has 0 entries"));
  EXPECT_THAT(CommErrorOf([&] { self->AllToAllRows(rows, {2}, {2}); }),
              HasSubstr("add up to 2, but the tensor has 3 rows"));
  EXPECT_THAT(CommErrorOf([&] { self->AllToAllRows(rows, {3}, {2}); }), HasSubstr("expects 2"));
  EXPECT_THAT(CommErrorOf([&] { self->AllToAllRows(rows, {3}, {-3}); }), HasSubstr("-3"));
  EXPECT_THAT(CommErrorOf([&] { self->Split("part", -1, 0); }), HasSubstr("color -1"));
}

}  // namespace
}  // namespace hypermoe
