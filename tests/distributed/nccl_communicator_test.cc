// NcclCommunicator over the stand-in for libnccl, against the communicator over MPI: results, and
// what goes where.
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "parallel/partition.h"
#include "tests/support/nccl_test.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr at::ScalarType kNumbers[] = {at::kFloat, at::kDouble, at::kLong};
constexpr at::ScalarType kMovable[] = {at::kFloat, at::kDouble, at::kLong, at::kBFloat16,
                                       at::kByte};

std::vector<int64_t> SizesFor(const Communicator& group) {
  return {0, 1, group.size() - 1, group.size(), 12 * group.size(), 5003};
}

void ExpectSameReductions(const GroupPair& pair, int64_t count, at::ScalarType dtype) {
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
  ForEachGroup([](const GroupPair& pair) {
    for (const int64_t count : SizesFor(*pair.mpi)) {
      for (at::ScalarType dtype : kNumbers) ExpectSameReductions(pair, count, dtype);
      ExpectSameReductions(pair, count, at::kBFloat16);
    }
  });
}

TEST(NcclCommunicatorTest, CopiesEqualThoseOfMpi) {
  ForEachGroup([](const GroupPair& pair) {
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

TEST(NcclCommunicatorTest, ExchangesEqualThoseOfMpi) {
  ForEachGroup([](const GroupPair& pair) {
    for (at::ScalarType dtype : kMovable) {
      for (int kind = 0; kind < kNumExchangeKinds; ++kind) {
        SCOPED_TRACE("kind " + std::to_string(kind) + " of " + c10::toString(dtype));
        const ExchangeRows exchange = ExchangeOf(*pair.mpi, kind);
        const at::Tensor rows = Values(exchange.num_sent * 6, dtype).view({-1, 2, 3});
        const at::Tensor expected = pair.mpi->AllToAllRows(rows, exchange.send, exchange.recv);
        EXPECT_TRUE(
            at::equal(pair.nccl->AllToAllRows(rows, exchange.send, exchange.recv), expected));
        StartedExchange started = pair.nccl->StartAllToAllRows(rows, exchange.send, exchange.recv);
        started.pending->Wait();
        EXPECT_TRUE(at::equal(started.received, expected));
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
  ForEachGroup([](const GroupPair& pair) {
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

TEST(NcclCommunicatorTest, TensorsOnTheCpuGoOverTheHost) {
  // Nothing of the test's lies on this device.
  const auto world = NcclWorld(std::make_shared<ImmediateQueue>(c10::Device(c10::kCUDA, 0)));
  EXPECT_EQ(world->device(), c10::Device(c10::kCUDA, 0));
  const auto mpi = MpiWorld();
  const auto names = NamesOf([&] {
    ExpectSameReductions({std::shared_ptr<Communicator>(world.get(), [](Communicator*) {}),
                          std::shared_ptr<Communicator>(mpi.get(), [](Communicator*) {})},
                         5003, at::kFloat);
    const ExchangeRows exchange = ExchangeOf(*world, 0);
    const at::Tensor rows = Values(exchange.num_sent, at::kFloat);
    EXPECT_TRUE(at::equal(world->AllToAllRows(rows, exchange.send, exchange.recv),
                          mpi->AllToAllRows(rows, exchange.send, exchange.recv)));
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
    const ExchangeRows exchange = ExchangeOf(*group, 0);
    group->AllToAllRows(Values(exchange.num_sent, at::kFloat), exchange.send, exchange.recv);
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
