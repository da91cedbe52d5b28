// Activation recomputation (arXiv:1604.06174): a block of which only the inputs are kept for
// backward, and what its sparse layer decided and received. In backward the block is computed once
// more, with the same routing and random numbers and without communication of its own, and then
// differentiated.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "model/moe_layer.h"

namespace hypermoe {

// A pass over a block: its output, of inputs among which are all that gradients must reach but
// parameters. `record`: see MoePass.
using BlockPass = std::function<at::Tensor(const std::vector<at::Tensor>& inputs,
                                           std::vector<RoutingResult>* routing, MoeRecord* record)>;

// pass(inputs, routing, nullptr) with the same results and gradients, bit for bit. Where no input
// requires grad (all before the block is frozen) it is just that: of such blocks only the last can
// keep anything. Gradients must be enabled, HyperExperts have been prepared; what `pass` refers to
// must outlive backward.
at::Tensor ForwardRecomputed(const BlockPass& pass, const std::vector<at::Tensor>& inputs,
                             std::vector<RoutingResult>* routing);

}  // namespace hypermoe
