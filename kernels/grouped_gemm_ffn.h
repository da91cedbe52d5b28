// GroupedFfn (grouped_ffn.h) by one grouped matrix product for all groups, at::_grouped_mm: on GPUs
// a kernel that finds the groups' rows on the device, so that a layer takes the same few launches
// however many experts it has. On the CPU, where LibTorch goes through the groups one by one, it
// defines the same results, for tests.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/grouped_ffn.h"

namespace hypermoe {

// Whether a GPU should do it so: bfloat16 rows, weights with their first axis, matrices whose rows
// begin at multiples of 16 bytes, at least one row.
bool IsGroupedGemmFfn(const at::Tensor& x_RD, const GroupedFfnWeights& weights);

// As GroupedFfn, whose checks have been made. Products are rounded to bfloat16, then added to
// gradients in the weights' precision; a group without rows adds nothing.
at::Tensor GroupedGemmFfn(const at::Tensor& x_RD, const std::vector<int64_t>& rows_per_group,
                          const GroupedFfnWeights& weights, Activation activation,
                          const InnerDropout& dropout);

}  // namespace hypermoe
