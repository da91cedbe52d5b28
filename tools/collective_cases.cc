#include "tools/collective_cases.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include "parallel/process_mesh.h"

namespace hypermoe {
namespace {

// Element i of what `from` has for `to`: small whole numbers, so that sums are exact in any order.
at::Tensor Pattern(int64_t count, int64_t from, int64_t to) {
  return (at::arange(count, at::kLong) * 7 + from * 131 + to * 17).remainder(1009).to(at::kFloat);
}

// The part of rank `part` of a flat tensor.
at::Tensor PartOf(const at::Tensor& flat, const Communicator& world, int part) {
  const RowRange range = RowsOfRank(flat.numel(), world.size(), part);
  return flat.slice(0, range.begin, range.end);
}

// For each rank p its part of a flat tensor, filled by `fill`(p, elements).
at::Tensor ByParts(int64_t count, const Communicator& world,
                   const std::function<at::Tensor(int, int64_t)>& fill) {
  at::Tensor flat = at::empty({count}, at::kFloat);
  for (int p = 0; p < world.size(); ++p) {
    at::Tensor part = PartOf(flat, world, p);
    part.copy_(fill(p, part.numel()));
  }
  return flat;
}

at::Tensor OwnPattern(int64_t count, const Communicator& world) {
  return Pattern(count, world.rank(), 0);
}

at::Tensor SumOfPatterns(int64_t count, const Communicator& world) {
  at::Tensor sum = at::zeros({count}, at::kFloat);
  for (int rank = 0; rank < world.size(); ++rank) sum += Pattern(count, rank, 0);
  return sum;
}

CollectiveCase AllToAll() {
  return {
      "all_to_all", 1,
      [](int64_t count, const Communicator& world) {
        return ByParts(count, world,
                       [&](int to, int64_t n) { return Pattern(n, world.rank(), to); });
      },
      [](int64_t count, const Communicator& world) {
        return ByParts(count, world,
                       [&](int from, int64_t n) { return Pattern(n, from, world.rank()); });
      },
      [](const at::Tensor& rows, Communicator& world) { return world.AllToAllEqualRows(rows); }};
}

CollectiveCase AllReduce() {
  return {"all_reduce", 2, OwnPattern, SumOfPatterns,
          [](const at::Tensor& tensor, Communicator& world) {
            world.AllReduceSum(tensor);
            return tensor;
          }};
}

CollectiveCase ReduceScatter() {
  return {"reduce_scatter", 1, OwnPattern,
          [](int64_t count, const Communicator& world) {
            return PartOf(SumOfPatterns(count, world), world, world.rank());
          },
          [](const at::Tensor& flat, Communicator& world) {
            world.StartReduceScatterSum(flat)->Wait();
            return PartOf(flat, world, world.rank());
          }};
}

CollectiveCase AllGather() {
  return {"all_gather", 1,
          [](int64_t count, const Communicator& world) {
            at::Tensor flat = at::zeros({count}, at::kFloat);
            at::Tensor own = PartOf(flat, world, world.rank());
            own.copy_(Pattern(own.numel(), world.rank(), 0));
            return flat;
          },
          [](int64_t count, const Communicator& world) {
            return ByParts(count, world, [](int from, int64_t n) { return Pattern(n, from, 0); });
          },
          [](const at::Tensor& flat, Communicator& world) {
            world.AllGatherParts(flat);
            return flat;
          }};
}

}  // namespace

std::vector<CollectiveCase> AllCollectiveCases() {
  return {AllToAll(), AllReduce(), ReduceScatter(), AllGather()};
}

int64_t CountWrong(const CollectiveCase& collective, int64_t count, Communicator& world) {
  const at::Tensor result = collective.call(collective.operand(count, world), world);
  const at::Tensor expected = collective.expected(count, world);
  const bool same_shape = result.sizes() == expected.sizes();
  int64_t wrong = same_shape ? result.ne(expected).sum().item<int64_t>() : expected.numel();
  world.AllReduceSum(at::from_blob(&wrong, {1}, at::kLong));
  return wrong;
}

}  // namespace hypermoe
