// Activation recomputation (arXiv:1604.06174): a block of which only the input is kept for
// backward, and what its sparse layer decided and received. In backward the block is computed once
// more, with the same routing and random numbers and without communication of its own, and then
// differentiated.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/transformer_block.h"

namespace hypermoe {

// block.Forward(x_TD, row_ids_B, mode, routing) with the same results and gradients, bit for bit.
// Where x_TD does not require grad (all before the block is frozen) it is just that: of such blocks
// only the last can keep anything. Gradients must be enabled, HyperExperts have been prepared;
// `block` must outlive backward.
at::Tensor ForwardRecomputed(TransformerBlock& block, const at::Tensor& x_TD,
                             const at::Tensor& row_ids_B, const ForwardMode& mode,
                             std::vector<RoutingResult>* routing);

}  // namespace hypermoe
