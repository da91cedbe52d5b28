// The table of relative positions as a bias of scores.
//
// Legend: K buckets, H heads, S query positions, L key positions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hypermoe {

// [H,S,L], contiguous: the row of table_KH that the bucket of query and key names
// (RelativePositionBuckets, relative_attention.h, with K buckets). float32 or float64.
// Differentiable; on a CPU backward first adds up each distance's gradients, in the order of
// queries, and then the distances of a bucket.
at::Tensor RelativePositionBias(const at::Tensor& table_KH, int64_t queries, int64_t keys,
                                int64_t first_query, bool bidirectional, int64_t max_distance);

}  // namespace hypermoe
