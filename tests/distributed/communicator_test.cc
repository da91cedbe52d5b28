#include "parallel/communicator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "parallel/partition.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr at::ScalarType kReducible[] = {at::kFloat, at::kDouble, at::kLong};

// Below and above the size from which reductions are cut up, and one of several pieces; odd, so
// that slices are uneven.
constexpr int64_t kReductionSizes[] = {0, 1, 3, 5003, 65537, 1200007};

// Small integers, different on every rank; exact in every dtype, whatever the order of a sum.
at::Tensor RankValues(int64_t count, int rank, at::ScalarType dtype) {
  return (at::arange(count, at::kLong).remainder(17) * (rank + 1) - 5).to(dtype);
}

TEST(MpiCommunicatorTest, AllReduceSumIsExact) {
  for (at::ScalarType dtype : kReducible) {
    for (int64_t count : kReductionSizes) {
      const at::Tensor values = RankValues(count, World()->rank(), dtype);
      at::Tensor expected = at::zeros_like(values);
      for (int rank = 0; rank < World()->size(); ++rank) expected += RankValues(count, rank, dtype);
      World()->AllReduceSum(values);
      EXPECT_TRUE(at::equal(values, expected)) << count << " of " << dtype;
    }
  }
}

TEST(MpiCommunicatorTest, AllReduceMaxIsExact) {
  for (at::ScalarType dtype : kReducible) {
    for (int64_t count : kReductionSizes) {
      const at::Tensor values = -RankValues(count, World()->rank(), dtype);
      at::Tensor expected = -RankValues(count, 0, dtype);
      for (int rank = 1; rank < World()->size(); ++rank) {
        expected = at::maximum(expected, -RankValues(count, rank, dtype));
      }
      World()->AllReduceMax(values);
      EXPECT_TRUE(at::equal(values, expected)) << count << " of " << dtype;
    }
  }
}

// Not exact, so that the order of addition shows.
at::Tensor InexactValues(int64_t count) {
  return (at::arange(count, at::kDouble) * (0.37 + World()->rank())).sin().to(at::kFloat);
}

TEST(MpiCommunicatorTest, AllReduceSumGivesEveryRankTheSameBits) {
  for (int64_t count : {7, 5003, 65537}) {
    const at::Tensor values = InexactValues(count);
    World()->AllReduceSum(values);
    const std::string bits(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
    for (const std::string& other : World()->AllGatherText(bits)) EXPECT_TRUE(other == bits);
  }
}

// Sums of pieces, started beside each other and beside other calls, are those of the whole array.
TEST(MpiCommunicatorTest, PendingSumsDoNotDependOnHowTheyAreCut) {
  for (const int64_t count : {0, 3, 5003, 400007}) {
    const at::Tensor whole = InexactValues(count);
    World()->StartAllReduceSum(whole)->Wait();
    for (const int64_t pieces : {1, 2, 5}) {
      const at::Tensor cut = InexactValues(count);
      std::vector<std::unique_ptr<PendingCollective>> pending;
      for (const at::Tensor& piece : cut.chunk(pieces)) {
        pending.push_back(World()->StartAllReduceSum(piece));
        const at::Tensor one = at::ones({1});
        World()->AllReduceSum(one);
        EXPECT_EQ(one.item<float>(), World()->size());
        for (const auto& reduction : pending) reduction->Test();
      }
      for (const auto& reduction : pending) reduction->Wait();
      EXPECT_TRUE(at::equal(cut, whole)) << count << " elements in " << pieces << " pieces";
    }
  }
}

TEST(MpiCommunicatorTest, PendingSumsAreExact) {
  for (at::ScalarType dtype : kReducible) {
    for (int64_t count : kReductionSizes) {
      const at::Tensor values = RankValues(count, World()->rank(), dtype);
      at::Tensor expected = at::zeros_like(values);
      for (int rank = 0; rank < World()->size(); ++rank) expected += RankValues(count, rank, dtype);
      const auto pending = World()->StartAllReduceSum(values);
      while (!pending->Test()) {
      }
      pending->Wait();
      EXPECT_TRUE(at::equal(values, expected)) << count << " of " << dtype;
    }
  }
}

// A scatter gives each rank its part of the same bits, and gathering the parts gives the whole.
TEST(MpiCommunicatorTest, ScatteredPartsMakeTheWhole) {
  for (const int64_t count : {0, 1, 3, 5003, 400007}) {
    const at::Tensor whole = InexactValues(count), scattered = InexactValues(count);
    World()->StartAllReduceSum(whole)->Wait();
    const int64_t before = World()->traffic(Collective::kReduceScatter).bytes;
    World()->StartReduceScatterSum(scattered)->Wait();
    EXPECT_EQ(World()->traffic(Collective::kReduceScatter).bytes - before,
              World()->size() > 1 ? 4 * count : 0);
    const RowRange own = RowsOfRank(count, World()->size(), World()->rank());
    const at::Tensor part = scattered.narrow(0, own.begin, own.size());
    EXPECT_TRUE(at::equal(part, whole.narrow(0, own.begin, own.size()))) << count;
    const at::Tensor gathered = at::full({count}, -1.0, at::kFloat);
    gathered.narrow(0, own.begin, own.size()).copy_(part);
    World()->AllGatherParts(gathered);
    EXPECT_TRUE(at::equal(gathered, whole)) << count;
  }
}

TEST(MpiCommunicatorTest, TheObserverSeesEveryCollective) {
  std::vector<Collective> seen;
  int64_t bytes = 0;
  World()->set_observer([&](const CollectiveEvent& event) {
    EXPECT_EQ(event.group, "world");
    EXPECT_LE(event.begin, event.end);
    seen.push_back(event.kind);
    bytes += event.bytes;
  });
  World()->StartAllReduceSum(at::ones({10}))->Wait();
  World()->Barrier();
  World()->set_observer({});
  World()->Barrier();
  EXPECT_THAT(seen, ElementsAreArray(
                        {Collective::kAllReduce, Collective::kAllReduce, Collective::kBarrier}));
  EXPECT_EQ(bytes, World()->size() > 1 ? 40 : 0);
}

TEST(MpiCommunicatorTest, BroadcastCopiesFromEveryRoot) {
  // The last is longer than one message.
  for (int64_t count : {0, 1, 1001, 20 << 20}) {
    for (int root = 0; root < World()->size(); ++root) {
      const at::Tensor values = at::full({count}, World()->rank() + 1, at::kByte);
      World()->Broadcast(values, root);
      EXPECT_TRUE(at::equal(values, at::full({count}, root + 1, at::kByte)));
    }
  }
}

// Rows that `from` sends to `to`: none for some pairs.
int64_t RowsBetween(int from, int to) { return (from + 2 * to) % 3; }

at::Tensor RowsFor(int from, int to, at::ScalarType dtype) {
  return at::full({RowsBetween(from, to), 2, 3}, 10 * from + to + 1, dtype);
}

TEST(MpiCommunicatorTest, AllToAllRowsMovesUnevenParts) {
  const int rank = World()->rank();
  for (at::ScalarType dtype : {at::kFloat, at::kDouble, at::kLong, at::kBFloat16, at::kByte}) {
    std::vector<int64_t> send_rows, recv_rows;
    std::vector<at::Tensor> sent, expected;
    for (int p = 0; p < World()->size(); ++p) {
      send_rows.push_back(RowsBetween(rank, p));
      recv_rows.push_back(RowsBetween(p, rank));
      sent.push_back(RowsFor(rank, p, dtype));
      expected.push_back(RowsFor(p, rank, dtype));
    }
    const int64_t before = World()->traffic(Collective::kAllToAll).bytes;
    const at::Tensor received = World()->AllToAllRows(at::cat(sent), send_rows, recv_rows);
    EXPECT_TRUE(at::equal(received, at::cat(expected)));
    const int64_t to_others =
        std::accumulate(send_rows.begin(), send_rows.end(), int64_t{0}) - send_rows[rank];
    EXPECT_EQ(World()->traffic(Collective::kAllToAll).bytes - before,
              to_others * 6 * static_cast<int64_t>(received.element_size()));
  }
}

TEST(MpiCommunicatorTest, AllToAllRowsTakesPartsLongerThanOneMessage) {
  // The first rank sends a long part to the last, everyone a row of it to the first.
  constexpr int64_t kLong = (40 << 20) / 8 / 5;
  const int last = World()->size() - 1;
  const auto rows = [last](int from, int to) {
    return from == 0 && to == last ? kLong : int64_t{to == 0 ? 1 : 0};
  };
  std::vector<int64_t> send_rows, recv_rows;
  std::vector<at::Tensor> sent, expected;
  for (int p = 0; p <= last; ++p) {
    send_rows.push_back(rows(World()->rank(), p));
    recv_rows.push_back(rows(p, World()->rank()));
    sent.push_back(at::arange(5 * send_rows.back(), at::kLong).view({-1, 5}) + World()->rank());
    expected.push_back(at::arange(5 * recv_rows.back(), at::kLong).view({-1, 5}) + p);
  }
  EXPECT_TRUE(
      at::equal(World()->AllToAllRows(at::cat(sent), send_rows, recv_rows), at::cat(expected)));
}

// Exchanges that are under way beside each other and beside other calls, of all sizes, waited for
// in any order; what they send may be let go of.
TEST(MpiCommunicatorTest, StartedExchangesEqualThoseThatBlock) {
  const int size = World()->size(), rank = World()->rank();
  for (const int64_t width : {3, 100000}) {
    std::vector<int64_t> send_rows, recv_rows;
    for (int p = 0; p < size; ++p) {
      send_rows.push_back(RowsBetween(rank, p));
      recv_rows.push_back(RowsBetween(p, rank));
    }
    const int64_t num_sent = std::accumulate(send_rows.begin(), send_rows.end(), int64_t{0});
    const auto rows = [&](int64_t count, int number) {
      return RankValues(count * width, 10 * number + rank, at::kFloat).view({count, width});
    };
    StartedExchange first = World()->StartAllToAllRows(rows(num_sent, 0), send_rows, recv_rows),
                    second = World()->StartAllToAllEqualRows(rows(2 * size, 1)),
                    counts = World()->StartAllToAllCounts(std::vector<int64_t>(size, rank));
    const at::Tensor between = World()->AllToAllRows(rows(num_sent, 2), send_rows, recv_rows);
    while (!counts.pending->Test()) {
    }
    second.pending->Wait();
    first.pending->Wait();
    EXPECT_TRUE(first.pending->Test());
    EXPECT_TRUE(
        at::equal(first.received, World()->AllToAllRows(rows(num_sent, 0), send_rows, recv_rows)));
    EXPECT_TRUE(at::equal(between, World()->AllToAllRows(rows(num_sent, 2), send_rows, recv_rows)));
    EXPECT_TRUE(at::equal(second.received, World()->AllToAllEqualRows(rows(2 * size, 1))));
    EXPECT_TRUE(at::equal(counts.received, at::arange(size, at::kLong)));
  }
}

TEST(MpiCommunicatorTest, AStartedExchangeIsCountedOnce) {
  const auto group = World()->Split("ledger", 0, World()->rank());
  std::vector<std::pair<bool, int64_t>> seen;
  group->set_observer(
      [&](const CollectiveEvent& event) { seen.emplace_back(event.goes_on, event.bytes); });
  const int64_t bytes = (group->size() - 1) * 2 * 8;
  StartedExchange rows = group->StartAllToAllEqualRows(at::ones({group->size(), 2}, at::kDouble));
  EXPECT_EQ(group->traffic(Collective::kAllToAll).calls, 1);
  rows.pending->Wait();
  rows.pending->Wait();
  EXPECT_THAT(seen, ElementsAreArray({std::pair<bool, int64_t>(false, bytes), {true, 0}}));
  EXPECT_EQ(group->traffic(Collective::kAllToAll).calls, 1);
  EXPECT_EQ(group->traffic(Collective::kAllToAll).bytes, bytes);
  group->StartAllToAllCounts(std::vector<int64_t>(group->size(), 1)).pending->Wait();
  EXPECT_EQ(group->traffic(Collective::kAllToAllCounts).calls, 1);
  EXPECT_EQ(group->traffic(Collective::kAllToAllCounts).bytes, (group->size() - 1) * 8);
}

TEST(MpiCommunicatorTest, AllToAllRowsOfNothingIsLegal) {
  const std::vector<int64_t> none(World()->size(), 0);
  EXPECT_EQ(World()->AllToAllRows(at::empty({0, 8}, at::kFloat), none, none).sizes(),
            (std::vector<int64_t>{0, 8}));
  const std::vector<int64_t> one(World()->size(), 1);
  EXPECT_EQ(World()->AllToAllRows(at::empty({World()->size(), 0}, at::kFloat), one, one).numel(),
            0);
}

TEST(MpiCommunicatorTest, AllToAllEqualRowsIsTheSameExchange) {
  for (const int64_t part : {0, 1, 4}) {
    const at::Tensor rows =
        RankValues(part * World()->size() * 3, World()->rank(), at::kDouble).view({-1, 3});
    const std::vector<int64_t> parts(World()->size(), part);
    EXPECT_TRUE(
        at::equal(World()->AllToAllEqualRows(rows), World()->AllToAllRows(rows, parts, parts)));
  }
}

TEST(MpiCommunicatorTest, AllToAllCountsExchangesParts) {
  std::vector<int64_t> counts, expected;
  for (int p = 0; p < World()->size(); ++p) {
    for (int i = 0; i < 3; ++i) {
      counts.push_back(100 * World()->rank() + 10 * p + i);
      expected.push_back(100 * p + 10 * World()->rank() + i);
    }
  }
  const int64_t before = World()->traffic(Collective::kAllToAllCounts).bytes;
  EXPECT_THAT(World()->AllToAllCounts(counts), ElementsAreArray(expected));
  EXPECT_EQ(World()->traffic(Collective::kAllToAllCounts).bytes - before,
            (World()->size() - 1) * 3 * 8);
}

TEST(MpiCommunicatorTest, AllGatherTextKeepsLengthsAndBytes) {
  const auto text_of = [](int rank) {
    return rank % 2 == 0 ? std::string(rank * 1000, 'a') + std::string("\0b", 2) : std::string();
  };
  const std::vector<std::string> texts = World()->AllGatherText(text_of(World()->rank()));
  ASSERT_EQ(texts.size(), static_cast<size_t>(World()->size()));
  for (int rank = 0; rank < World()->size(); ++rank) EXPECT_EQ(texts[rank], text_of(rank));
}

TEST(MpiCommunicatorTest, SplitGroupsByColorAndOrdersByKey) {
  const int rank = World()->rank();
  const auto part = World()->Split("part", rank % 2, -rank);
  const int members = (World()->size() + 1 - rank % 2) / 2;
  EXPECT_EQ(part->name(), "part");
  EXPECT_EQ(part->size(), members);
  EXPECT_EQ(part->rank(), members - 1 - rank / 2);
  const at::Tensor sum = at::full({1}, rank, at::kLong);
  part->AllReduceSum(sum);
  EXPECT_EQ(sum.item<int64_t>(), members * (members - 1) + members * (rank % 2));
}

TEST(MpiCommunicatorTest, LedgerCountsOperandsOfReductionsAndBroadcasts) {
  const auto group = World()->Split("ledger", 0, World()->rank());
  const at::Tensor values = at::ones({3, 5}, at::kDouble);
  group->AllReduceSum(values);
  group->AllReduceMax(values);
  group->Broadcast(values, 0);
  group->Barrier();
  group->AllGatherText("four");
  const int64_t others = group->size() > 1 ? 1 : 0;
  EXPECT_EQ(group->traffic(Collective::kAllReduce).calls, 2);
  EXPECT_EQ(group->traffic(Collective::kAllReduce).bytes, others * 2 * 15 * 8);
  EXPECT_EQ(group->traffic(Collective::kBroadcast).bytes, others * 15 * 8);
  EXPECT_EQ(group->traffic(Collective::kBarrier).calls, 1);
  EXPECT_EQ(group->traffic(Collective::kAllGather).bytes, others * 4);
  EXPECT_GT(group->traffic(Collective::kAllReduce).seconds, 0);
  EXPECT_EQ(group->traffic(Collective::kAllToAll).calls, 0);
}

TEST(MpiCommunicatorTest, ErrorsOfMpiNameCallGroupAndRank) {
  if (World()->size() == 1) return;  // a group of one exchanges no messages
  // A group of its own: the rest of the exchange stays undone. Rank 0 sends two rows where rank 1
  // expects one.
  const auto group = World()->Split("torn", 0, World()->rank());
  std::vector<int64_t> send_rows(group->size(), 0), recv_rows(group->size(), 0);
  if (group->rank() == 0) send_rows[1] = 2;
  if (group->rank() == 1) recv_rows[0] = 1;
  std::string message;
  try {
    group->AllToAllRows(at::ones({group->rank() == 0 ? 2 : 0, 4}, at::kDouble), send_rows,
                        recv_rows);
  } catch (const CommError& error) {
    message = error.what();
  }
  if (group->rank() == 1) {
    EXPECT_THAT(message, AllOf(HasSubstr("AllToAllRows in group 'torn' (rank 1 of "),
                               HasSubstr("MPI_Wait:"), HasSubstr("TRUNCATE")));
  } else {
    EXPECT_EQ(message, "");
  }
}

TEST(MpiCommunicatorTest, BadArgumentsFailBeforeAnythingIsSent) {
  const at::Tensor rows = at::ones({2, 2}, at::kFloat);
  const std::vector<int64_t> none(World()->size(), 0);
  EXPECT_THROW(World()->AllToAllRows(rows, none, none), CommError);
  EXPECT_THROW(World()->Broadcast(rows, World()->size()), CommError);
  EXPECT_THROW(World()->AllReduceSum(rows.t()), CommError);
  EXPECT_THROW(World()->AllToAllEqualRows(at::ones({})), CommError);
  EXPECT_THROW(World()->StartAllToAllRows(rows, none, none), CommError);
  if (World()->size() > 1) {
    EXPECT_THROW(World()->AllToAllCounts({1}), CommError);
    EXPECT_THROW(World()->AllToAllEqualRows(at::ones({1})), CommError);
  }
}

}  // namespace
}  // namespace hypermoe
