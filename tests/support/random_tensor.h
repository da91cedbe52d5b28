// Tensors to test kernels with, and how far results are from exact ones.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <string>

#include "kernels/keyed_random.h"

namespace hypermoe {

// Standard normal; the same for the same name and shape.
inline at::Tensor Random(at::IntArrayRef shape, const std::string& name,
                         at::ScalarType dtype = at::kDouble) {
  at::Tensor tensor = at::empty(shape, at::kDouble);
  FillNormal(tensor, RandomKey{1, 0}.Derive(name), 1.0);
  return tensor.to(dtype);
}

inline at::Tensor Leaf(at::IntArrayRef shape, const std::string& name,
                       at::ScalarType dtype = at::kDouble) {
  return Random(shape, name, dtype).set_requires_grad(true);
}

// The largest difference, relative to the largest element; from any devices.
inline double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor exact = expected.to(at::kCPU, at::kDouble);
  return ((actual.to(at::kCPU, at::kDouble) - exact).abs().max() / exact.abs().max())
      .item<double>();
}

}  // namespace hypermoe
