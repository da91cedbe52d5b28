// Token rows with factors: gates that travel with them in one exchange, and what they are
// multiplied by.
//
// Legend: T rows, D width, G gates of a row.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// [T, D + c]: rows_TD and, behind each, the bits of its gates in as many columns c as they fill.
// Differentiable.
at::Tensor AttachGates(const at::Tensor& rows_TD, const at::Tensor& gates_TG);

struct GatedRows {
  at::Tensor rows_TD, gates_TG;
};
// The opposite. Columns must have been moved as they are: they are bits, not numbers.
GatedRows DetachGates(const at::Tensor& attached, int64_t width, at::ScalarType gate_dtype);

// [T,c]: the bits of int64 numbers as c columns of a floating-point dtype, which can travel as
// gates do, and back. Without gradient.
at::Tensor NumberColumns(const at::Tensor& numbers_T, at::ScalarType dtype);
at::Tensor NumbersOf(const at::Tensor& columns_TC);

// rows_TD times a factor for each row, or one for all (may be undefined: 1), multiplied in the
// wider precision; in that of the rows. Differentiable.
at::Tensor ScaleRows(const at::Tensor& rows_TD, const at::Tensor& factor);

}  // namespace hypermoe
