// What stands between the grouped matrix products of GroupedGemmFfn (grouped_gemm_ffn.h). Free of
// LibTorch, whose headers take nvcc 19 seconds a file.
#pragma once

#include <cstdint>

#include "kernels/activation_kind.h"
#include "kernels/element_type.h"

namespace hypermoe {

// Consecutive groups of contiguous rows, on the device of the implementation.
struct GroupedRows {
  ElementType element;
  int64_t rows, width, groups;
  const int32_t* ends;  // [groups]: the row after each group's last; ascending, the last is `rows`
};

namespace cpu {
// pre[r, f] += bias[group of r, f], and hidden = activation(pre), rounded from the sum before it is
// rounded to pre. bias (null: 0) and hidden (null: not wanted) have the elements of pre.
void AddBiasAndActivate(const GroupedRows& in, void* pre, const void* bias, Activation activation,
                        void* hidden);
// sums[g, f] = the sum over the group's rows of rows[r, f], in float32, or float64 for float64; 0
// for a group without rows. Always in the same order.
void SumRowsOfGroups(const GroupedRows& in, const void* rows, void* sums);
}  // namespace cpu

// On the current stream.
namespace cuda {
void AddBiasAndActivate(const GroupedRows& in, void* pre, const void* bias, Activation activation,
                        void* hidden);
void SumRowsOfGroups(const GroupedRows& in, const void* rows, void* sums);
}  // namespace cuda

}  // namespace hypermoe
