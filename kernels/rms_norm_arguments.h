// What RmsNorm's implementation for CPUs is given (rms_norm.h). Free of LibTorch.
#pragma once

#include <cstdint>

#include "kernels/element_type.h"

namespace hypermoe {

// Contiguous arrays. "Precise" is float64 for float64 elements, else float32: that of weights and
// sums.
struct RmsNormArguments {
  ElementType element;
  const void* x;       // [rows, width]
  const void* weight;  // [width], precise
  double epsilon;
  int64_t rows, width;
};

struct RmsNormGradients {
  const void* y;  // given: [rows, width]
  void* x;        // written: [rows, width]; null: not wanted
  // Written: for each block of kRmsNormBlock rows, what its rows add to the weight's gradient.
  // [blocks, width], precise; null: not wanted.
  void* weight;
};

// Rows whose parts of the weight's gradient one thread adds up, in order, whatever the threads are.
constexpr int64_t kRmsNormBlock = 32;

namespace cpu {

// inverse: [rows], precise; written, and given to backward: 1 / sqrt(mean(x^2) + epsilon).
void RmsNorm(const RmsNormArguments& in, void* inverse, void* y);
void RmsNormBackward(const RmsNormArguments& in, const void* inverse, const RmsNormGradients& grad);

}  // namespace cpu
}  // namespace hypermoe
