// The collectives of training (parallel/communicator.h) as bench_all_to_all times them, with data
// that shows whether they did what they must.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "parallel/communicator.h"

namespace hypermoe {

// A collective on `count` float32 elements a rank, in the sense in which nccl-tests count:
// all-to-all, what a rank sends, its own part included; all-reduce and reduce-scatter, the operand;
// all-gather, the result. A multiple of the ranks.
struct CollectiveCase {
  const char* name;
  // Bus bandwidth over algorithm bandwidth, without the factor (n-1)/n.
  double bus_factor;
  // The operand of this rank, and what the call must return for it.
  std::function<at::Tensor(int64_t count, const Communicator&)> operand, expected;
  // The call itself; returns the part of the result that is defined. May overwrite its operand.
  std::function<at::Tensor(const at::Tensor&, Communicator&)> call;
};

// all_to_all, all_reduce, reduce_scatter, all_gather.
std::vector<CollectiveCase> AllCollectiveCases();

// Elements of the result, summed over the ranks, that are not what they must be; all of a rank's if
// the shape is wrong.
int64_t CountWrong(const CollectiveCase& collective, int64_t count, Communicator& world);

}  // namespace hypermoe
