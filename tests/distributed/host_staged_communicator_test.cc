#include "parallel/host_staged_communicator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "parallel/process_mesh.h"
#include "tests/support/mpi_test.h"
#include "tests/support/random_tensor.h"

namespace hypermoe {
namespace {

using Call = std::function<at::Tensor(Communicator&)>;

// Every kind of call, with arguments that differ from rank to rank. What a call leaves undefined is
// left out of its result.
std::vector<Call> Calls() {
  const auto own = [](Communicator& group, at::IntArrayRef shape, at::ScalarType dtype) {
    return Random(shape, "own of rank " + std::to_string(group.rank()), dtype);
  };
  const auto own_part = [](Communicator& group, const at::Tensor& flat) {
    const RowRange part = RowsOfRank(flat.numel(), group.size(), group.rank());
    return flat.narrow(0, part.begin, part.size());
  };
  return {
      [=](Communicator& group) {
        const at::Tensor x = own(group, {5, 7}, at::kFloat);
        group.AllReduceSum(x);
        return x;
      },
      [=](Communicator& group) {
        const at::Tensor x = own(group, {3}, at::kDouble);
        group.AllReduceMax(x);
        return x;
      },
      [=](Communicator& group) {
        const at::Tensor first = own(group, {1000}, at::kFloat),
                         second = own(group, {77}, at::kFloat);
        const auto one = group.StartAllReduceSum(first);
        const auto other = group.StartReduceScatterSum(second);
        while (!other->Test()) continue;
        one->Wait();
        EXPECT_TRUE(one->Test());
        return first.sum() + own_part(group, second).sum();
      },
      [=](Communicator& group) {
        const at::Tensor x = own(group, {23}, at::kFloat);
        group.AllGatherParts(x);
        return x;
      },
      [=](Communicator& group) {
        const at::Tensor x = own(group, {4, 2}, at::kBFloat16);
        group.Broadcast(x, group.size() - 1);
        return x;
      },
      [=](Communicator& group) {
        // Rank r sends r + p rows to rank p.
        std::vector<int64_t> counts;
        for (int p = 0; p < group.size(); ++p) counts.push_back(group.rank() + p);
        const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
        return group.AllToAllRows(own(group, {total, 3}, at::kBFloat16), counts, counts);
      },
      [=](Communicator& group) {
        return group.AllToAllEqualRows(own(group, {2 * group.size(), 3}, at::kFloat));
      },
      [=](Communicator& group) {
        const std::vector<int64_t> one(group.size(), 1);
        StartedExchange rows =
            group.StartAllToAllRows(own(group, {group.size(), 3}, at::kFloat), one, one);
        StartedExchange equal =
            group.StartAllToAllEqualRows(own(group, {2 * group.size(), 3}, at::kFloat));
        while (!equal.pending->Test()) continue;
        rows.pending->Wait();
        return rows.received.sum() + equal.received.sum();
      },
  };
}

TEST(HostStagedCommunicatorTest, EqualsTheTransportBelow) {
  // Whose traffic starts at nothing.
  const auto new_world = [] { return World()->Split("world", 0, World()->rank()); };
  const std::shared_ptr<Communicator> plain = new_world(),
                                      staged = NewHostStagedCommunicator(new_world(), at::kCPU);
  EXPECT_EQ(staged->name(), "world");
  EXPECT_EQ(staged->rank(), World()->rank());
  const int degree = World()->size() > 2 ? 2 : World()->size();
  const ProcessMesh mesh = ProcessMesh::Create(plain, degree),
                    staged_mesh = ProcessMesh::Create(staged, degree);
  const std::vector<std::pair<Communicator*, Communicator*>> groups = {
      {mesh.world.get(), staged_mesh.world.get()},
      {mesh.expert.get(), staged_mesh.expert.get()},
      {mesh.expert_data.get(), staged_mesh.expert_data.get()}};
  for (const auto& [group, staged_group] : groups) {
    int number = 0;
    for (const Call& call : Calls()) {
      EXPECT_TRUE(call(*staged_group).equal(call(*group))) << group->name() << ", call " << number;
      ++number;
    }
    EXPECT_EQ(staged_group->AllToAllCounts(std::vector<int64_t>(group->size(), group->rank())),
              group->AllToAllCounts(std::vector<int64_t>(group->size(), group->rank())));
    EXPECT_EQ(staged_group->AllGatherText("rank"), group->AllGatherText("rank"));
    staged_group->Barrier();
    for (int kind = 0; kind < kNumCollectives; ++kind) {
      const Collective collective = static_cast<Collective>(kind);
      if (collective == Collective::kBarrier) continue;
      EXPECT_EQ(staged_group->traffic(collective).bytes, group->traffic(collective).bytes)
          << CollectiveName(collective);
    }
  }
}

}  // namespace
}  // namespace hypermoe
