// AdamW (Loshchilov and Hutter, arXiv:1711.05101) over flat buffers, PyTorch's order of operations:
//   value *= 1 - lr * weight_decay        (parameters marked for decay only)
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   value -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon),   t = 1, 2, ...
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/flat_buffer.h"

namespace hypermoe {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

class AdamW {
 public:
  // `buffers` must outlive this. Moments start at zero.
  AdamW(const std::vector<FlatBuffer>& buffers, AdamWOptions options);

  // One update from the gradients in the buffers. Local: no communication.
  void Step(double learning_rate);

  // The state that a checkpoint keeps: updates made so far, and flat moments by buffer index,
  // writable in place.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  const at::Tensor& first_moments(size_t buffer) const { return first_[buffer]; }
  const at::Tensor& second_moments(size_t buffer) const { return second_[buffer]; }

 private:
  const std::vector<FlatBuffer>& buffers_;
  AdamWOptions options_;
  int64_t steps_ = 0;
  std::vector<at::Tensor> first_, second_;
};

}  // namespace hypermoe
