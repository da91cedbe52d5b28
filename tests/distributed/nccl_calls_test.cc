// What the communicator over NCCL calls, and in which order, over the stand-in for libnccl.
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "parallel/process_mesh.h"
#include "tests/support/nccl_test.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Every collective, with parts that are equal and parts that are not.
void CallAll(Communicator& group, bool even) {
  const int64_t count = 12 * group.size() + (even ? 0 : 1);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    group.AllReduceSum(Values(count, dtype));
    group.AllReduceMax(Values(count, dtype));
    const auto first = group.StartAllReduceSum(Values(count, dtype));
    const auto second = group.StartReduceScatterSum(Values(count, dtype));
    group.AllGatherParts(Values(count, dtype));
    second->Wait();
    first->Wait();
    group.Broadcast(Values(count, dtype), group.size() - 1);
    if (even) group.AllToAllEqualRows(Values(count, dtype).view({-1, 3}));
    for (int kind = 0; kind < kNumExchangeKinds; ++kind) {
      const ExchangeRows exchange = ExchangeOf(group, kind);
      const at::Tensor rows = Values(exchange.num_sent * 4, dtype).view({-1, 4});
      group.AllToAllRows(rows, exchange.send, exchange.recv);
      StartedExchange started = group.StartAllToAllRows(rows, exchange.send, exchange.recv);
      group.AllReduceSum(Values(count, dtype));
      started.pending->Wait();
    }
  }
}

TEST(NcclCallsTest, RanksMakeTheSameCallsInTheSameOrder) {
  ForEachGroup([](const GroupPair& pair) {
    for (const bool even : {false, true}) {
      std::vector<NcclCall> calls = CallsOf([&] { CallAll(*pair.nccl, even); });
      // Not all have something to copy to themselves.
      std::erase_if(calls, [](const NcclCall& call) { return call.name == "copy"; });
      EXPECT_GT(calls.size(), 20);
      EXPECT_EQ(Difference(OnAllRanks(*pair.mpi, calls)), "");
    }
  });
}

// Over the groups of a mesh, whose reductions are under way beside each other.
TEST(NcclCallsTest, GroupsShareOneOrder) {
  const ProcessMesh mesh = ProcessMesh::Create(NcclWorld(), /*expert_degree=*/2);
  const std::vector<NcclCall> calls = CallsOf([&] {
    const at::Tensor dense = Values(11, at::kFloat), expert = Values(8, at::kFloat);
    const auto first = mesh.world->StartAllReduceSum(dense);
    const auto second = mesh.expert_data->StartReduceScatterSum(expert);
    mesh.expert->AllToAllEqualRows(Values(12, at::kFloat));
    first->Wait();
    second->Wait();
  });
  EXPECT_EQ(Difference(OnAllRanks(*World(), calls)), "");
  std::vector<std::string> groups;
  for (const NcclCall& call : calls) {
    if (call.group != "-") groups.push_back(call.group);
  }
  EXPECT_THAT(groups, ElementsAre("world", "expert_data", "expert"));
}

TEST(NcclCallsTest, TheComparisonOfRanksFindsWhatDiffers) {
  const auto world = NcclWorld();
  const auto by_rank = OnAllRanks(*World(), CallsOf([&] {
    world->AllReduceSum(Values(5, at::kFloat));
    world->AllReduceMax(Values(5, at::kFloat));
    const ExchangeRows exchange = ExchangeOf(*world, 1);
    world->AllToAllRows(Values(exchange.num_sent, at::kFloat), exchange.send, exchange.recv);
    world->AllToAllRows(Values(exchange.num_sent, at::kFloat), exchange.send, exchange.recv);
  }));
  const size_t last = by_rank.size() - 1;
  auto calls_by_rank = by_rank;
  for (auto& calls : calls_by_rank) {
    std::erase_if(calls, [](const NcclCall& call) { return call.name == "copy"; });
  }
  ASSERT_EQ(Difference(calls_by_rank), "");
  // Of the last rank, which sends to all others: the n-th call of a name.
  const auto changed = [&](const std::string& name, int n,
                           const std::function<void(std::vector<NcclCall>&, size_t)>& change) {
    auto copy = calls_by_rank;
    for (size_t i = 0; i < copy[last].size(); ++i) {
      if (copy[last][i].name != name || n-- > 0) continue;
      change(copy[last], i);
      return Difference(copy);
    }
    return std::string("no such call");
  };
  const auto drop = [](std::vector<NcclCall>& calls, size_t i) { calls.erase(calls.begin() + i); };
  EXPECT_THAT(changed("ncclAllReduce", 0,
                      [](std::vector<NcclCall>& calls, size_t i) {
                        const auto other = std::find_if(
                            calls.begin() + i + 1, calls.end(),
                            [](const NcclCall& call) { return call.name == "ncclAllReduce"; });
                        std::iter_swap(calls.begin() + i, other);
                      }),
              AllOf(HasSubstr("(sum)"), HasSubstr("(max)")));
  EXPECT_THAT(
      changed("ncclAllReduce", 1, [](std::vector<NcclCall>& calls, size_t i) { ++calls[i].count; }),
      AllOf(HasSubstr("of 5 "), HasSubstr("of 6 ")));
  EXPECT_THAT(changed("ncclAllReduce", 0,
                      [](std::vector<NcclCall>& calls, size_t i) { calls[i].type = "Double"; }),
              HasSubstr("Double"));
  EXPECT_THAT(changed("ncclAllReduce", 1, drop), HasSubstr("step"));
  EXPECT_THAT(changed("ncclGroupEnd", 1, drop), HasSubstr("step"));
  EXPECT_THAT(changed("ncclSend", 0, drop), HasSubstr("0 sends, but 1 receives"));
  EXPECT_THAT(
      changed("ncclSend", 0, [](std::vector<NcclCall>& calls, size_t i) { calls[i].count = 9; }),
      HasSubstr("9"));
  EXPECT_THAT(changed("ncclSend", 0,
                      [&](std::vector<NcclCall>& calls, size_t i) {
                        calls[i].peer = static_cast<int>(last);
                      }),
              HasSubstr("useless"));
  EXPECT_THAT(
      changed("ncclSend", 0, [](std::vector<NcclCall>& calls, size_t i) { calls[i].count = 0; }),
      HasSubstr("useless"));
}

TEST(NcclCallsTest, EqualPartsUseTheCallsForThem) {
  const auto world = NcclWorld();
  const int64_t size = world->size();
  const auto scatter = [&](int64_t count) {
    return NamesOf([&] { world->StartReduceScatterSum(Values(count, at::kFloat))->Wait(); });
  };
  const auto gather = [&](int64_t count) {
    return NamesOf([&] { world->AllGatherParts(Values(count, at::kFloat)); });
  };
  const auto exchange = [&](const std::vector<int64_t>& rows) {
    return NamesOf([&] { world->AllToAllRows(Values(size, at::kFloat), rows, rows); });
  };
  EXPECT_THAT(scatter(4 * size), ElementsAre("keep", "wait_for_current", "ncclReduceScatter",
                                             "record", "current_waits"));
  EXPECT_THAT(gather(4 * size),
              ElementsAre("wait_for_current", "ncclAllGather", "record", "current_waits"));
  EXPECT_THAT(NamesOf([&] { world->AllToAllEqualRows(Values(3 * size, at::kFloat)); }),
              ElementsAre("wait_for_current", "ncclAlltoAll", "record", "current_waits"));

  // Parts of one element for all ranks but the last, which has none.
  EXPECT_THAT(scatter(size - 1), AllOf(Contains("ncclReduce").Times(static_cast<int>(size - 1)),
                                       Contains("ncclGroupStart"), Contains("ncclGroupEnd"),
                                       Not(Contains("ncclReduceScatter"))));
  EXPECT_THAT(gather(size - 1), AllOf(Contains("ncclBroadcast").Times(static_cast<int>(size - 1)),
                                      Contains("ncclGroupStart"), Not(Contains("ncclAllGather"))));
  EXPECT_THAT(exchange(std::vector<int64_t>(size, 1)),
              AllOf(Contains("ncclSend").Times(static_cast<int>(size - 1)),
                    Contains("ncclRecv").Times(static_cast<int>(size - 1)), Contains("copy"),
                    Not(Contains("ncclAlltoAll"))));
}

TEST(NcclCallsTest, NothingIsSentOfNothing) {
  const auto world = NcclWorld();
  EXPECT_THAT(NamesOf([&] {
                const at::Tensor none = at::empty({0}, at::kFloat);
                world->AllReduceSum(none);
                world->AllReduceMax(none);
                world->Broadcast(none, 0);
                world->AllGatherParts(none);
                const auto pending = world->StartReduceScatterSum(none);
                EXPECT_TRUE(pending->Test());
                pending->Wait();
                world->AllToAllEqualRows(none);
              }),
              ElementsAre());
}

// Waiting orders streams: a started reduction holds up the current stream only from its Wait on.
TEST(NcclCallsTest, StreamsWaitForEachOther) {
  const auto queue = std::make_shared<ImmediateQueue>();
  const auto world = NcclWorld(queue);
  const at::Tensor values = Values(5, at::kFloat);
  EXPECT_THAT(NamesOf([&] { world->AllReduceSum(values); }),
              ElementsAre("wait_for_current", "ncclAllReduce", "record", "current_waits"));
  std::unique_ptr<PendingCollective> pending;
  EXPECT_THAT(NamesOf([&] { pending = world->StartAllReduceSum(values); }),
              ElementsAre("keep", "wait_for_current", "ncclAllReduce", "record"));
  queue->set_done(false);
  EXPECT_THAT(NamesOf([&] { EXPECT_FALSE(pending->Test()); }), ElementsAre());
  EXPECT_THAT(NamesOf([&] { pending->Wait(); }), ElementsAre("current_waits"));
  pending = world->StartAllReduceSum(values);
  queue->set_done(true);
  EXPECT_THAT(NamesOf([&] {
                EXPECT_TRUE(pending->Test());
                pending->Wait();  // has been done
              }),
              ElementsAre());
}

TEST(NcclCallsTest, AStartedExchangeHoldsUpTheCurrentStreamFromItsWaitOn) {
  const auto world = NcclWorld();
  const at::Tensor rows = Values(3 * world->size(), at::kFloat);
  StartedExchange started;
  EXPECT_THAT(NamesOf([&] { started = world->StartAllToAllEqualRows(rows); }),
              ElementsAre("wait_for_current", "ncclAlltoAll", "record"));
  EXPECT_THAT(NamesOf([&] { started.pending->Wait(); }), ElementsAre("current_waits"));
  const std::vector<int64_t> three(world->size(), 3);
  const auto names = NamesOf([&] { started = world->StartAllToAllRows(rows, three, three); });
  EXPECT_THAT(names,
              AllOf(Contains("ncclSend"), Contains("record"), Not(Contains("current_waits"))));
  // What a rank has for itself is copied beside the messages.
  EXPECT_EQ(names.back(), "copy");
  EXPECT_THAT(NamesOf([&] {
                started.pending->Wait();
                started.pending->Wait();
              }),
              ElementsAre("current_waits"));
}

}  // namespace
}  // namespace hypermoe
