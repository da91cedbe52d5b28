// Rows by their numbers.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// rows[index[k]]: [K, ...]. index_K: int64 on the rows' device, no number twice. Differentiable in
// rows; unlike at::index_select, whose backward adds, a row's gradient is moved as it is: columns
// may hold bits that are no numbers (model/gated_rows.h), and nothing is added in no order on a
// GPU.
at::Tensor SelectRows(const at::Tensor& rows, const at::Tensor& index_K);

}  // namespace hypermoe
