// The pieces in which gradients are reduced, and in which ZeRO-1 shards the optimizer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/flat_buffer.h"
#include "parallel/partition.h"
#include "parallel/process_mesh.h"

namespace hypermoe {

// Consecutive elements of one flat buffer, which the ranks of `group` hold in common. Each of them
// owns one part.
struct GradientBucket {
  size_t buffer = 0;
  RowRange elements;  // of the buffer
  Communicator* group = nullptr;

  // The elements of the buffer that rank `rank` of the group owns.
  RowRange PartOf(int rank) const {
    const RowRange part = RowsOfRank(elements.size(), group->size(), rank);
    return {elements.begin + part.begin, elements.begin + part.end};
  }
  RowRange OwnPart() const { return PartOf(group->rank()); }
  at::Tensor In(const at::Tensor& flat) const {
    return flat.narrow(0, elements.begin, elements.size());
  }
};

// All elements with a gradient of all buffers in buckets of at most `bucket_bytes`, in the order in
// which backward completes them: parameters that were made later first, the hypernetwork's last.
// The group is the world, or expert_data for experts. Ranks that share a group have the same
// buckets of it in the same order; `mesh` must outlive the result.
std::vector<GradientBucket> MakeGradientBuckets(const std::vector<FlatBuffer>& buffers,
                                                const ProcessMesh& mesh, int64_t bucket_bytes);

}  // namespace hypermoe
