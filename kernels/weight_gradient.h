// Where a kernel's backward leaves the gradients of weights: added to what the weight's gradient
// holds already, without a tensor of the weight's size in between, which would be written and read
// again as a whole.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// The gradient of one weight in a kernel's backward.
class WeightGradient {
 public:
  // A weight that is a leaf and has a gradient (of its own shape) already, as parameters in a
  // FlatBuffer do, is added to in place.
  explicit WeightGradient(const at::Tensor& weight);

  // Whether the weight requires grad; the others are undefined if not.
  bool IsNeeded() const { return sum_.defined(); }
  // What to add to: the weight's own gradient, or zeros in its shape and dtype.
  const at::Tensor& sum() const { return sum_; }
  // What to return to autograd: the sum, or, if it was added in place, an undefined tensor, to
  // which autograd adds nothing; it calls the weight's post-accumulate hook all the same, after the
  // last use of the weight in the pass.
  at::Tensor ToReturn() const { return in_place_ ? at::Tensor() : sum_; }

 private:
  bool in_place_;
  at::Tensor sum_;
};

}  // namespace hypermoe
