// What the losses of a router look at: sums over tokens by expert, of each of several rows of
// tokens or of all of them, in one pass.
//
// Legend: B rows, T = B S tokens (S a row, one row after the other), N experts, K choices of each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hypermoe {

// On the probabilities' device; the sums in their dtype and differentiable.
struct RouteSums {
  at::Tensor choices_BN;  // int64: how many choices fell on the expert
  at::Tensor probs_BN;    // sum over the row's tokens of its probability
  at::Tensor gates_BN;    // sum over the row's choices of it of their gates
};

// probs_TN: float32 or float64; expert_ids_TK: int64; gate_TK: like probs. rows = B divides T; B =
// 1 without tokens gives zeros. Throws c10::Error for what does not fit together, and on the CPU
// for ids outside [0, N), which a GPU leaves out. The same bits every time, for any number of
// threads.
RouteSums SumRoutes(const at::Tensor& probs_TN, const at::Tensor& expert_ids_TK,
                    const at::Tensor& gate_TK, int64_t rows);

}  // namespace hypermoe
