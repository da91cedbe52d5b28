// For tests of the communicator over NCCL, with the stand-in for libnccl (recording_nccl.h):
// groups, what they exchange, and what they call.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/immediate_queue.h"
#include "tests/support/mpi_test.h"
#include "tests/support/recording_nccl.h"

namespace hypermoe {

// The world, as groups of their own.
std::unique_ptr<Communicator> MpiWorld();
std::unique_ptr<Communicator> NcclWorld(
    std::shared_ptr<ImmediateQueue> queue = std::make_shared<ImmediateQueue>());

// A group over NCCL and one of the same ranks over MPI.
struct GroupPair {
  std::shared_ptr<Communicator> nccl, mpi;
};
// The groups of every mesh of this world, named in what fails.
void ForEachGroup(const std::function<void(const GroupPair&)>& test);

// Small integers, different on every rank of the world; their sums are exact in every dtype.
at::Tensor Values(int64_t count, at::ScalarType dtype);

// How many rows this rank exchanges with each of a group.
struct ExchangeRows {
  std::vector<int64_t> send, recv;
  int64_t num_sent = 0;
};
// Kind 0: some, none for some pairs; 1: only the last rank sends; 2: nobody does; 3: each to itself
// alone.
constexpr int kNumExchangeKinds = 4;
ExchangeRows ExchangeOf(const Communicator& group, int kind);

// The calls of NCCL and steps of the queue while `action` runs, and their names.
std::vector<NcclCall> CallsOf(const std::function<void()>& action);
std::vector<std::string> NamesOf(const std::function<void()>& action);

// By rank of the group what each of its ranks gave.
std::vector<std::vector<NcclCall>> OnAllRanks(Communicator& group,
                                              const std::vector<NcclCall>& calls);

// The message of the CommError that `action` throws, or "no CommError".
std::string CommErrorOf(const std::function<void()>& action);

}  // namespace hypermoe
