// How many tokens an expert takes (configs/run.proto, CapacityConfig).
//
// Legend: T tokens, N experts, K choices of a token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "configs/run.pb.h"

namespace hypermoe {

// Which choices the chosen expert takes: bool [T,K]; undefined where there is no limit. In every
// capacity group and for every expert the first choices by position, row by row, then the second
// ones, and so on. expert_ids_TK: int64, best first, the tokens of num_rows rows of equal length (0
// of 0 rows); groups start at the first of them.
at::Tensor ChoicesTaken(const at::Tensor& expert_ids_TK, int64_t num_rows, int64_t num_experts,
                        const CapacityConfig& config);

// The same, if there is a limit, in operators that the ids' device is given, so that no host waits
// for it: how ChoicesTaken works on a GPU. A counting loop is faster on the CPU.
at::Tensor ChoicesTakenOnDevice(const at::Tensor& expert_ids_TK, int64_t num_rows,
                                int64_t num_experts, const CapacityConfig& config);

// Rows of a capacity group, which must lie on one rank: 1 where rows do not matter to each other; 0
// stands for all rows of a pass.
int64_t CapacityGroupRows(const CapacityConfig& config);

}  // namespace hypermoe
