// GroupedFfn (grouped_ffn.h) for networks so small that one thread should have a whole product:
// HyperExperts, and the experts of small models. Groups are worked on side by side, each piece by
// one thread from its first product to its last, and results are written where they belong, so that
// nothing is joined afterwards. Of bfloat16 x, products are made in bfloat16 where the processor
// can (small_gemm.h), sums of gradients in the weights' precision. Elsewhere pieces of x are made
// as precise as the weights, not the weights like x: that is less to convert.
//
// tools/bench_moe_layer shows what it brings.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/grouped_ffn.h"

namespace hypermoe {

// Whether SmallFfn is the faster way: small matrices, and groups for all threads.
bool IsSmallFfn(const std::vector<int64_t>& rows_per_group, const GroupedFfnWeights& weights);

// As GroupedFfn, whose checks have been made; weights have their first axis. The same bits every
// time with the same number of threads.
at::Tensor SmallFfn(const at::Tensor& x_RD, const std::vector<int64_t>& rows_per_group,
                    const GroupedFfnWeights& weights, Activation activation,
                    const InnerDropout& dropout);

}  // namespace hypermoe
