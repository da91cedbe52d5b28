// NcclCommunicator over the stand-in for libnccl, against the communicator over MPI.

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "parallel/device_queue.h"
#include "parallel/partition.h"
#include "parallel/process_mesh.h"
#include "tests/support/immediate_queue.h"
#include "tests/support/mpi_test.h"
#include "tests/support/recording_nccl.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr at::ScalarType kNumbers[] = {at::kFloat, at::kDouble, at::kLong};
constexpr at::ScalarType kMovable[] = {at::kFloat, at::kDouble, at::kLong, at::kBFloat16,
                                       at::kByte};

std::unique_ptr<Communicator> MpiWorld() { return World()->Split("world", 0, World()->rank()); }
std::unique_ptr<Communicator> NcclWorld(std::shared_ptr<ImmediateQueue> queue) {
  return NewNcclCommunicator(MpiWorld(), std::move(queue));
}
std::unique_ptr<Communicator> NcclWorld() { return NcclWorld(std::make_shared<ImmediateQueue>()); }

// What `action` makes of NCCL and the queue.
std::vector<NcclCall> CallsOf(const std::function<void()>& action) {
  recording_nccl::Take();
  action();
  return recording_nccl::Take();
}

std::vector<std::string> NamesOf(const std::function<void()>& action) {
  std::vector<std::string> names;
  for (const NcclCall& call : CallsOf(action)) names.push_back(call.name);
  return names;
}

std::vector<std::vector<NcclCall>> OnAllRanks(Communicator& group,
                                              const std::vector<NcclCall>& calls) {
  std::vector<std::vector<NcclCall>> by_rank;
  for (const std::string& text : group.AllGatherText(Serialized(calls))) {
    by_rank.push_back(Parsed(text));
  }
  return by_rank;
}

std::string CommErrorOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no CommError";
}

// A group over NCCL and one of the same ranks over MPI.
struct Pair {
  std::shared_ptr<Communicator> nccl, mpi;
};

// The groups of every mesh of this world.
void ForEachGroup(const std::function<void(const Pair&)>& test) {
  for (int degree = 1; degree <= World()->size(); ++degree) {
    if (World()->size() % degree != 0) continue;
    const ProcessMesh nccl = ProcessMesh::Create(NcclWorld(), degree);
    const ProcessMesh mpi = ProcessMesh::Create(MpiWorld(), degree);
    for (const Pair& pair : {Pair{nccl.world, mpi.world},
                             {nccl.expert, mpi.expert},
                             {nccl.expert_data, mpi.expert_data}}) {
      SCOPED_TRACE("group '" + pair.mpi->name() + "', expert degree " + std::to_string(degree));
      ASSERT_EQ(pair.nccl->name(), pair.mpi->name());
      ASSERT_EQ(pair.nccl->rank(), pair.mpi->rank());
      ASSERT_EQ(pair.nccl->size(), pair.mpi->size());
      test(pair);
    }
  }
}

// Small integers, different on every rank of the world; their sums are exact in every dtype.
at::Tensor Values(int64_t count, at::ScalarType dtype) {
  return (at::arange(count, at::kLong).remainder(13) * (World()->rank() + 1)).to(dtype);
}

std::vector<int64_t> SizesFor(const Communicator& group) {
  return {0, 1, group.size() - 1, group.size(), 12 * group.size(), 5003};
}

void ExpectSameReductions(const Pair& pair, int64_t count, at::ScalarType dtype) {
  SCOPED_TRACE(std::to_string(count) + " of " + c10::toString(dtype));
  const auto on_both = [&](const std::function<void(Communicator&, const at::Tensor&)>& action) {
    // MPI sums no bfloat16.
    const bool widened = dtype == at::kBFloat16;
    const at::Tensor actual = Values(count, dtype),
                     expected = Values(count, widened ? at::kFloat : dtype);
    action(*pair.nccl, actual);
    action(*pair.mpi, expected);
    return std::pair(actual, expected.to(dtype));
  };
  const auto expect_equal = [](const std::pair<at::Tensor, at::Tensor>& results) {
    EXPECT_TRUE(at::equal(results.first, results.second));
  };
  expect_equal(on_both([](Communicator& group, const at::Tensor& x) { group.AllReduceSum(x); }));
  expect_equal(on_both([](Communicator& group, const at::Tensor& x) { group.AllReduceMax(x); }));
  expect_equal(on_both([](Communicator& group, const at::Tensor& x) {
    const auto pending = group.StartAllReduceSum(x);
    while (!pending->Test()) {
    }
    pending->Wait();
  }));
  const auto [actual, expected] = on_both(
      [](Communicator& group, const at::Tensor& x) { group.StartReduceScatterSum(x)->Wait(); });
  const RowRange own = RowsOfRank(count, pair.mpi->size(), pair.mpi->rank());
  EXPECT_TRUE(at::equal(actual.narrow(0, own.begin, own.size()),
                        expected.narrow(0, own.begin, own.size())));
}

TEST(NcclCommunicatorTest, ReductionsEqualThoseOfMpi) {
  ForEachGroup([](const Pair& pair) {
    for (const int64_t count : SizesFor(*pair.mpi)) {
      for (at::ScalarType dtype : kNumbers) ExpectSameReductions(pair, count, dtype);
      ExpectSameReductions(pair, count, at::kBFloat16);
    }
  });
}

TEST(NcclCommunicatorTest, CopiesEqualThoseOfMpi) {
  ForEachGroup([](const Pair& pair) {
    for (const int64_t count : SizesFor(*pair.mpi)) {
      for (at::ScalarType dtype : kMovable) {
        SCOPED_TRACE(std::to_string(count) + " of " + c10::toString(dtype));
        const at::Tensor actual = Values(count, dtype), expected = Values(count, dtype);
        pair.nccl->AllGatherParts(actual);
        pair.mpi->AllGatherParts(expected);
        EXPECT_TRUE(at::equal(actual, expected));
        for (int root = 0; root < pair.mpi->size(); ++root) {
          const at::Tensor copied = Values(count, dtype), wanted = Values(count, dtype);
          pair.nccl->Broadcast(copied, root);
          pair.mpi->Broadcast(wanted, root);
          EXPECT_TRUE(at::equal(copied, wanted)) << "from " << root;
        }
      }
    }
  });
}

struct Exchange {
  std::vector<int64_t> send_rows, recv_rows;
  int64_t num_sent = 0;
};

// Rows that go from `from` to `to` of the group; `kind` 0: some, none for some pairs; 1: only the
// last rank sends, 2: nobody does, 3: each to itself alone.
Exchange ExchangeOf(const Communicator& group, int kind) {
  const auto rows = [&](int from, int to) -> int64_t {
    if (kind == 0) return (from + 2 * to) % 3;
    if (kind == 1) return from == group.size() - 1 ? to + 1 : 0;
    if (kind == 2) return 0;
    return from == to ? 2 : 0;
  };
  Exchange exchange;
  for (int p = 0; p < group.size(); ++p) {
    exchange.send_rows.push_back(rows(group.rank(), p));
    exchange.recv_rows.push_back(rows(p, group.rank()));
    exchange.num_sent += exchange.send_rows.back();
  }
  return exchange;
}

TEST(NcclCommunicatorTest, ExchangesEqualThoseOfMpi) {
  ForEachGroup([](const Pair& pair) {
    for (at::ScalarType dtype : kMovable) {
      for (int kind = 0; kind < 4; ++kind) {
        SCOPED_TRACE("kind " + std::to_string(kind) + " of " + c10::toString(dtype));
        const Exchange exchange = ExchangeOf(*pair.mpi, kind);
        const at::Tensor rows = Values(exchange.num_sent * 6, dtype).view({-1, 2, 3});
        EXPECT_TRUE(
            at::equal(pair.nccl->AllToAllRows(rows, exchange.send_rows, exchange.recv_rows),
                      pair.mpi->AllToAllRows(rows, exchange.send_rows, exchange.recv_rows)));
      }
      for (const int64_t part : {0, 1, 5}) {
        const at::Tensor rows = Values(part * pair.mpi->size() * 3, dtype).view({-1, 3});
        EXPECT_TRUE(
            at::equal(pair.nccl->AllToAllEqualRows(rows), pair.mpi->AllToAllEqualRows(rows)));
      }
    }
    EXPECT_EQ(pair.nccl
                  ->AllToAllRows(at::empty({pair.mpi->size(), 0}),
                                 std::vector<int64_t>(pair.mpi->size(), 1),
                                 std::vector<int64_t>(pair.mpi->size(), 1))
                  .numel(),
              0);
  });
}

TEST(NcclCommunicatorTest, CountsTextsAndBarriersGoOverTheHost) {
  ForEachGroup([](const Pair& pair) {
    EXPECT_THAT(CallsOf([&] {
                  std::vector<int64_t> counts(2 * pair.mpi->size(), World()->rank());
                  counts.back() = 77;
                  EXPECT_EQ(pair.nccl->AllToAllCounts(counts), pair.mpi->AllToAllCounts(counts));
                  const std::string text(World()->rank(), 'x');
                  EXPECT_EQ(pair.nccl->AllGatherText(text), pair.mpi->AllGatherText(text));
                  pair.nccl->Barrier();
                }),
                ElementsAre());
  });
}

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
    for (int kind = 0; kind < 4; ++kind) {
      const Exchange exchange = ExchangeOf(group, kind);
      group.AllToAllRows(Values(exchange.num_sent * 4, dtype).view({-1, 4}), exchange.send_rows,
                         exchange.recv_rows);
    }
  }
}

TEST(NcclCommunicatorTest, RanksMakeTheSameCallsInTheSameOrder) {
  ForEachGroup([](const Pair& pair) {
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
TEST(NcclCommunicatorTest, GroupsShareOneOrder) {
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

TEST(NcclCommunicatorTest, TheComparisonOfRanksFindsWhatDiffers) {
  const auto world = NcclWorld();
  const auto by_rank = OnAllRanks(*World(), CallsOf([&] {
    world->AllReduceSum(Values(5, at::kFloat));
    world->AllReduceMax(Values(5, at::kFloat));
    const Exchange exchange = ExchangeOf(*world, 1);
    world->AllToAllRows(Values(exchange.num_sent, at::kFloat), exchange.send_rows,
                        exchange.recv_rows);
    world->AllToAllRows(Values(exchange.num_sent, at::kFloat), exchange.send_rows,
                        exchange.recv_rows);
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

TEST(NcclCommunicatorTest, EqualPartsUseTheCallsForThem) {
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

TEST(NcclCommunicatorTest, NothingIsSentOfNothing) {
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
TEST(NcclCommunicatorTest, StreamsWaitForEachOther) {
  const auto queue = std::make_shared<ImmediateQueue>();
  const auto world = NcclWorld(queue);
  const at::Tensor values = Values(5, at::kFloat);
  EXPECT_THAT(NamesOf([&] { world->AllReduceSum(values); }),
              ElementsAre("wait_for_current", "ncclAllReduce", "record", "current_waits"));
  std::unique_ptr<PendingReduction> pending;
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

TEST(NcclCommunicatorTest, TensorsOnTheCpuGoOverTheHost) {
  // Nothing of the test's lies on this device.
  const auto world = NcclWorld(std::make_shared<ImmediateQueue>(c10::Device(c10::kCUDA, 0)));
  EXPECT_EQ(world->device(), c10::Device(c10::kCUDA, 0));
  const auto mpi = MpiWorld();
  const auto names = NamesOf([&] {
    ExpectSameReductions({std::shared_ptr<Communicator>(world.get(), [](Communicator*) {}),
                          std::shared_ptr<Communicator>(mpi.get(), [](Communicator*) {})},
                         5003, at::kFloat);
    const Exchange exchange = ExchangeOf(*world, 0);
    const at::Tensor rows = Values(exchange.num_sent, at::kFloat);
    EXPECT_TRUE(at::equal(world->AllToAllRows(rows, exchange.send_rows, exchange.recv_rows),
                          mpi->AllToAllRows(rows, exchange.send_rows, exchange.recv_rows)));
    const at::Tensor copied = Values(7, at::kByte), wanted = Values(7, at::kByte);
    world->Broadcast(copied, 1);
    mpi->Broadcast(wanted, 1);
    world->AllGatherParts(copied);
    mpi->AllGatherParts(wanted);
    EXPECT_TRUE(at::equal(copied, wanted));
  });
  EXPECT_THAT(names, ElementsAre());
  EXPECT_THAT(CommErrorOf([&] { world->AllReduceSum(at::ones({2}, at::kBFloat16)); }),
              HasSubstr("BFloat16"));
  EXPECT_THAT(CommErrorOf([&] { world->AllReduceSum(at::empty({2}, at::kMeta)); }),
              HasSubstr("on meta, but this group's transport takes cpu and cuda:0"));
}

TEST(NcclCommunicatorTest, TheLedgerCountsAsOverMpi) {
  const auto world = NcclWorld(), mpi = MpiWorld();
  for (Communicator* group : {world.get(), mpi.get()}) {
    group->AllReduceSum(Values(12, at::kFloat));
    group->StartReduceScatterSum(Values(12, at::kFloat))->Wait();
    group->AllGatherParts(Values(12, at::kFloat));
    group->Broadcast(Values(12, at::kFloat), 0);
    const Exchange exchange = ExchangeOf(*group, 0);
    group->AllToAllRows(Values(exchange.num_sent, at::kFloat), exchange.send_rows,
                        exchange.recv_rows);
    group->AllToAllEqualRows(Values(12, at::kFloat));
    group->AllToAllCounts(std::vector<int64_t>(group->size(), 3));
    group->Barrier();
  }
  for (int kind = 0; kind < kNumCollectives; ++kind) {
    const Traffic &actual = world->traffic(static_cast<Collective>(kind)),
                  &expected = mpi->traffic(static_cast<Collective>(kind));
    EXPECT_EQ(actual.calls, expected.calls) << CollectiveName(static_cast<Collective>(kind));
    EXPECT_EQ(actual.bytes, expected.bytes) << CollectiveName(static_cast<Collective>(kind));
  }
}

// Whatever finds a failure in the background first aborts the group, names it, and is the last to
// do something with it.
TEST(NcclCommunicatorTest, FailuresInTheBackgroundAbortTheGroup) {
  const std::function<void(Communicator&, PendingReduction&)> finders[] = {
      [](Communicator&, PendingReduction& pending) { pending.Test(); },
      [](Communicator&, PendingReduction& pending) { pending.Wait(); },
      [](Communicator& group, PendingReduction&) { group.CheckTransport(); },
      [](Communicator& group, PendingReduction&) { group.AllReduceSum(at::ones({3})); }};
  for (const auto& find : finders) {
    auto world = NcclWorld();
    auto part = world->Split("part", 0, World()->rank());
    const at::Tensor values = Values(3, at::kFloat);
    auto pending = part->StartAllReduceSum(values);
    const std::string place = " in group 'part' (rank " + std::to_string(World()->rank()) + " of ";
    EXPECT_EQ(CommErrorOf([&] { part->CheckTransport(); }), "no CommError");
    recording_nccl::FailInBackground("part");
    recording_nccl::Take();
    EXPECT_THAT(
        CommErrorOf([&] { find(*part, *pending); }),
        AllOf(HasSubstr(place), HasSubstr("remote process exited"), HasSubstr("peer gone")));
    recording_nccl::FailInBackground("");
    for (int i = 0; i < 2; ++i) {
      EXPECT_THAT(CommErrorOf([&] { part->Broadcast(values, 0); }),
                  AllOf(HasSubstr(place), HasSubstr("aborted before"), HasSubstr("peer gone")));
    }
    EXPECT_THAT(CommErrorOf([&] { part->CheckTransport(); }), HasSubstr("aborted before"));
    world->AllReduceSum(values);  // another group is well
    pending.reset();
    part.reset();
    std::vector<std::string> ends;
    for (const NcclCall& call : recording_nccl::Take()) {
      if (call.group == "part") ends.push_back(call.name);
    }
    EXPECT_THAT(ends, ElementsAre("ncclCommAbort"));
  }
}

TEST(NcclCommunicatorTest, FailedCallsAreNamedWithNcclsText) {
  const std::pair<const char*, std::function<void(Communicator&)>> cases[] = {
      {"ncclAllReduce", [](Communicator& group) { group.AllReduceSum(at::ones({3})); }},
      {"ncclReduceScatter",
       [](Communicator& group) { group.StartReduceScatterSum(at::ones({group.size()})); }},
      {"ncclReduce",
       [](Communicator& group) { group.StartReduceScatterSum(at::ones({group.size() + 1})); }},
      {"ncclAllGather",
       [](Communicator& group) { group.AllGatherParts(at::ones({group.size()})); }},
      {"ncclBroadcast", [](Communicator& group) { group.Broadcast(at::ones({3}), 0); }},
      {"ncclAlltoAll",
       [](Communicator& group) { group.AllToAllEqualRows(at::ones({group.size()})); }},
      {"ncclSend",
       [](Communicator& group) {
         const std::vector<int64_t> rows(group.size(), 1);
         group.AllToAllRows(at::ones({group.size()}), rows, rows);
       }},
      {"ncclGroupEnd",
       [](Communicator& group) { group.AllGatherParts(at::ones({group.size() + 1})); }}};
  for (const auto& [name, call] : cases) {
    auto world = NcclWorld();
    recording_nccl::FailNext(name);
    recording_nccl::Take();
    EXPECT_THAT(CommErrorOf([&] { call(*world); }),
                AllOf(HasSubstr(" in group 'world' (rank " + std::to_string(World()->rank())),
                      HasSubstr("unhandled system error: cable unplugged")))
        << name;
    world.reset();
    std::vector<std::string> names;
    for (const NcclCall& made : recording_nccl::Take()) names.push_back(made.name);
    EXPECT_THAT(names, AllOf(Contains(name), Contains("ncclCommAbort").Times(1),
                             Not(Contains("ncclCommDestroy"))));
    // No group was left open.
    EXPECT_EQ(std::count(names.begin(), names.end(), "ncclGroupStart"),
              std::count(names.begin(), names.end(), "ncclGroupEnd"))
        << name;
  }
}

TEST(NcclCommunicatorTest, NamesTheGroupThatCannotBeMade) {
  recording_nccl::FailNext("ncclCommInitRankConfig");
  EXPECT_THAT(
      CommErrorOf([] { NcclWorld(); }),
      AllOf(HasSubstr("ncclCommInitRankConfig in group 'world'"), HasSubstr("cable unplugged")));
  if (World()->rank() == 0) recording_nccl::FailNext("ncclGetUniqueId");
  EXPECT_THAT(CommErrorOf([] { NcclWorld(); }),
              AllOf(HasSubstr("ncclGetUniqueId on rank 0 of group 'world'"),
                    HasSubstr("unhandled system error")));
  const auto world = NcclWorld();
  recording_nccl::FailNext("ncclCommSplit");
  EXPECT_THAT(CommErrorOf([&] { world->Split("half", 0, World()->rank()); }),
              AllOf(HasSubstr("ncclCommSplit in group 'half'"), HasSubstr("cable unplugged")));
}

TEST(NcclCommunicatorTest, VersionsThatDifferAreNamed) {
  recording_nccl::SetVersion(World()->rank() == 1 ? 22703 : 22809);
  EXPECT_THAT(CommErrorOf([] { NcclWorld(); }),
              HasSubstr("NCCL in group 'world' is 2.28.9 on rank 0 but 2.27.3 on rank 1"));
  recording_nccl::SetVersion(0);
}

TEST(NcclCommunicatorTest, OrderlyEndsDestroyAndOthersAbort) {
  const auto ends_of = [](const std::function<void()>& action) {
    std::vector<std::string> ends;
    for (const std::string& name : NamesOf(action)) {
      if (name == "ncclCommDestroy" || name == "ncclCommAbort") ends.push_back(name);
    }
    return ends;
  };
  EXPECT_THAT(ends_of([] { NcclWorld()->AllReduceSum(at::ones({3})); }),
              ElementsAre("ncclCommDestroy"));
  EXPECT_THAT(ends_of([] {
                try {
                  const auto world = NcclWorld();
                  throw std::runtime_error("something else");
                } catch (const std::runtime_error&) {
                }
              }),
              ElementsAre("ncclCommAbort"));
  // Nobody waited for a reduction.
  EXPECT_THAT(ends_of([] {
                const auto world = NcclWorld();
                world->StartAllReduceSum(at::ones({3}));
              }),
              ElementsAre("ncclCommAbort"));
}

TEST(NcclCommunicatorTest, WorksInAGroupOfOne) {
  const auto self =
      NewNcclCommunicator(NewSelfCommunicator("alone"), std::make_shared<ImmediateQueue>());
  const at::Tensor values = Values(7, at::kFloat), copy = values.clone();
  self->AllReduceSum(values);
  self->StartReduceScatterSum(values)->Wait();
  self->AllGatherParts(values);
  self->Broadcast(values, 0);
  EXPECT_TRUE(at::equal(values, copy));
  EXPECT_TRUE(at::equal(self->AllToAllRows(values, {7}, {7}), copy));
  EXPECT_TRUE(at::equal(self->AllToAllEqualRows(values), copy));
  EXPECT_EQ(self->traffic(Collective::kAllReduce).bytes, 0);
}

}  // namespace
}  // namespace hypermoe
