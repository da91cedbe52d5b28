// One AdamW update (Loshchilov and Hutter, arXiv:1711.05101) of a flat array, in one pass.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

struct AdamWFactors {
  double gradient_scale = 1;     // every gradient is multiplied with this first (clipping)
  double beta1 = 0, beta2 = 0;   // decay of the moments
  double step_size = 0;          // learning rate / (1 - beta1^t)
  double second_correction = 1;  // 1 / (1 - beta2^t)
  double epsilon = 0;            // after the root
  double value_decay = 1;        // 1 - learning rate * weight decay
};

// With g = gradient_scale * gradient, for every element:
//   value *= value_decay
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   value -= step_size * m / (sqrt(v * second_correction) + epsilon)
// in the tensors' own precision. All are flat, contiguous, on the CPU, of one length and dtype,
// float32 or float64. An element's result does not depend on where in an array it stands, nor on
// the number of threads.
void AdamWUpdate(const at::Tensor& value, const at::Tensor& gradient, const at::Tensor& m,
                 const at::Tensor& v, const AdamWFactors& factors);

}  // namespace hypermoe
