#include "tests/support/nccl_test.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <utility>

#include "parallel/process_mesh.h"

namespace hypermoe {

std::unique_ptr<Communicator> MpiWorld() { return World()->Split("world", 0, World()->rank()); }

std::unique_ptr<Communicator> NcclWorld(std::shared_ptr<ImmediateQueue> queue) {
  return NewNcclCommunicator(MpiWorld(), std::move(queue));
}

void ForEachGroup(const std::function<void(const GroupPair&)>& test) {
  for (int degree = 1; degree <= World()->size(); ++degree) {
    if (World()->size() % degree != 0) continue;
    const ProcessMesh nccl = ProcessMesh::Create(NcclWorld(), degree);
    const ProcessMesh mpi = ProcessMesh::Create(MpiWorld(), degree);
    for (const GroupPair& pair : {GroupPair{nccl.world, mpi.world},
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

at::Tensor Values(int64_t count, at::ScalarType dtype) {
  return (at::arange(count, at::kLong).remainder(13) * (World()->rank() + 1)).to(dtype);
}

ExchangeRows ExchangeOf(const Communicator& group, int kind) {
  const auto rows = [&](int from, int to) -> int64_t {
    if (kind == 0) return (from + 2 * to) % 3;
    if (kind == 1) return from == group.size() - 1 ? to + 1 : 0;
    if (kind == 2) return 0;
    return from == to ? 2 : 0;
  };
  ExchangeRows exchange;
  for (int p = 0; p < group.size(); ++p) {
    exchange.send.push_back(rows(group.rank(), p));
    exchange.recv.push_back(rows(p, group.rank()));
    exchange.num_sent += exchange.send.back();
  }
  return exchange;
}

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

}  // namespace hypermoe
