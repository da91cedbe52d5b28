// One AdamW update (Loshchilov and Hutter, arXiv:1711.05101) of many flat arrays, in one pass over
// each.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace hypermoe {

// Flat, contiguous, of one length; values, gradients and moments of one dtype, float32 or float64.
struct AdamWPiece {
  at::Tensor value, gradient, m, v;
  at::Tensor copy;         // bfloat16, gets the new value rounded; undefined: none
  double value_decay = 1;  // 1 - learning rate * weight decay
};

struct AdamWFactors {
  double gradient_scale = 1;     // every gradient is multiplied with this first (clipping)
  double beta1 = 0, beta2 = 0;   // decay of the moments
  double step_size = 0;          // learning rate / (1 - beta1^t)
  double second_correction = 1;  // 1 / (1 - beta2^t)
  double epsilon = 0;            // after the root

  // What the pieces' device alone may know yet: tensors of one element there, any dtype. The device
  // reads them when it comes to the update, so that the host need not wait for it.
  at::Tensor device_gradient_scale;  // gradient_scale is multiplied with this; undefined: 1
  at::Tensor skip;                   // nonzero: nothing is changed; undefined: 0
};

// With g = gradient_scale * gradient, for every element of every piece:
//   value *= value_decay
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   value -= step_size * m / (sqrt(v * second_correction) + epsilon)
//   copy = value
// in the values' own precision. All pieces are of one dtype, on one device, and share no memory;
// there may be none. An element's bits do not depend on where in an array it stands, on how pieces
// are cut, on the device, nor on the number of threads. Throws c10::Error for what does not fit
// together, before anything is changed.
void AdamWUpdate(const std::vector<AdamWPiece>& pieces, const AdamWFactors& factors);

}  // namespace hypermoe
