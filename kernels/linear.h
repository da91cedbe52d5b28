// A linear layer, and the embedding that may share its weight.
//
// Legend: R rows, D input width, E output width, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// x_RD weight_DE (+ bias_E): [R,E], in the dtype of x_RD, to which weight and bias are cast.
// Differentiable in all; what does not require grad costs nothing in backward. Where the weight has
// a gradient already, backward adds to it in place (gradient_sink.h).
at::Tensor Linear(const at::Tensor& x_RD, const at::Tensor& weight_DE, const at::Tensor& bias_E);
// x_RD times the transpose of weight_VD (+ bias_V): [R,V].
at::Tensor LinearTransposed(const at::Tensor& x_RD, const at::Tensor& weight_VD,
                            const at::Tensor& bias_V = {});

// Rows of weight_VD by ids: ids.sizes() + [D]. ids: int64, below V. Differentiable; backward adds
// the rows' gradients to the weight's in the order of ids, in place where it can.
at::Tensor EmbeddingRows(const at::Tensor& weight_VD, const at::Tensor& ids);

}  // namespace hypermoe
