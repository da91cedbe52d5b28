// The sum that a mixture of experts ends with: what a token's experts answered, each multiplied by
// its gate, brought back from expert order, on top of what else acts on the token; in one pass over
// the rows, with sums in registers.
//
// Legend: T tokens, K choices of each, C = T K, D width.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

enum class BaseOrder { kTokens, kRows };

// [T,D], of rows' dtype and device:
//
//   y[t] = base[t] + sum over k of gate[t,k] rows[position[t,k]]             (BaseOrder::kTokens)
//   y[t] = base[position[t,0]] + gate[t,0] rows[position[t,0]], K = 1        (BaseOrder::kRows)
//
// rows_CD: float32, float64 or bfloat16. gate_TK: sums are made in its precision; float64 for
// float64 rows, else float32. position_C: int64, a permutation of the rows; undefined: t K + k.
// base_TD: like rows; undefined: 0. Differentiable in rows, gates and base; throws c10::Error for
// what does not fit together. The same bits for any number of threads.
at::Tensor CombineRows(const at::Tensor& rows_CD, const at::Tensor& gate_TK,
                       const at::Tensor& position_C, const at::Tensor& base_TD, BaseOrder order);

}  // namespace hypermoe
