// A stable counting sort of choices by expert: where each goes when rows are brought into expert
// order, and how many every expert has.
//
// Legend: C choices (of one expert by one token), N experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hypermoe {

// On the ids' device, all int64.
struct ExpertOrder {
  at::Tensor order_C;    // position -> choice
  at::Tensor inverse_C;  // choice -> position
  // [N + 2]: the choices of each expert; then the ids outside [0, N), which stand behind all
  // others; then the choices whose id is less than the one before, of which sorted ids have none.
  at::Tensor counts;
};

// expert_ids_C: int64 on any device; 1 <= num_experts <= 4097, one more than a model may have, for
// choices that are of none. Choices of the same expert keep their order. Throws c10::Error for
// arguments that do not fit, and on the CPU for an id outside [0, N); on a GPU such ids are counted
// instead, so that the call does not wait for it. The same results every time, for any number of
// threads.
ExpertOrder OrderByExpert(const at::Tensor& expert_ids_C, int64_t num_experts);

}  // namespace hypermoe
