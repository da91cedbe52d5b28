// Brings what each rank has made of its own experts to all ranks of the expert group, with
// autograd.
//
// Legend: N experts, e experts held here.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "parallel/communicator.h"

namespace hypermoe {

// own_eX: [e, ...], of the experts that ExpertsOfRank gives this rank; returns [N, ...], the same
// on all ranks of `expert`. Backward: each rank gets, of its own experts, the sum of all ranks'
// gradients. One all-gather of ceil(N / ranks) rows a rank, in backward one reduce-scatter of as
// many; nothing in a group of one, where the result is own_eX itself. Collective over `expert`, in
// backward too: own_eX requires grad on all ranks or on none.
at::Tensor GatherExperts(const at::Tensor& own_eX, const std::shared_ptr<Communicator>& expert,
                         int64_t num_experts);

}  // namespace hypermoe
