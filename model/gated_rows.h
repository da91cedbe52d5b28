// Token rows that carry their gate, so that both travel in one exchange.
//
// Legend: T rows, D width.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// [T, D + c]: rows_TD and, behind each, the bits of its gate in as many columns c as it fills.
// Differentiable.
at::Tensor AttachGate(const at::Tensor& rows_TD, const at::Tensor& gate_T1);

struct GatedRows {
  at::Tensor rows_TD, gate_T1;
};
// The opposite. Columns must have been moved as they are: they are bits, not numbers.
GatedRows DetachGate(const at::Tensor& attached, int64_t width, at::ScalarType gate_dtype);

}  // namespace hypermoe
