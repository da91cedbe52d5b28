// Where a kernel's backward leaves the gradients of weights: added to what the weight's gradient
// holds already, without a tensor of the weight's size in between, which would be written and read
// again as a whole.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// Whether gradients of `weight` can be added in place: it is a leaf that requires grad and has a
// gradient (of its own shape) already, as parameters in a FlatBuffer do. Return an undefined
// gradient to autograd then: it adds nothing, and calls its post-accumulate hook all the same,
// after the last use of the weight in the pass.
bool HasGradientSink(const at::Tensor& weight);

}  // namespace hypermoe
