// What CombineRows' two implementations are given (combine_rows.h has the equation). Free of
// LibTorch, whose headers take nvcc 19 seconds a file.
#pragma once

#include <cstdint>

#include "kernels/element_type.h"

namespace hypermoe {

// Contiguous arrays on the device of the implementation.
struct CombineRowsArguments {
  ElementType element;      // of rows, base and y
  const void* rows;         // [C, width]
  const void* gate;         // [tokens, choices], float64 for float64 elements, else float32
  const int64_t* position;  // [C]; null: t * choices + k
  const void* base;         // [tokens, width]; null: 0
  bool base_in_row_order;   // BaseOrder::kRows
  int64_t tokens, choices, width;
};

// Contiguous arrays in the shapes of what they are gradients of; those of rows and gate are written
// whole, and that of base if it is not null.
struct CombineRowsGradients {
  const void* y;
  void *rows, *gate, *base;
};

namespace cpu {
void CombineRows(const CombineRowsArguments& in, void* y);
void CombineRowsBackward(const CombineRowsArguments& in, const CombineRowsGradients& grad);
}  // namespace cpu

// On the current stream.
namespace cuda {
void CombineRows(const CombineRowsArguments& in, void* y);
void CombineRowsBackward(const CombineRowsArguments& in, const CombineRowsGradients& grad);
}  // namespace cuda

}  // namespace hypermoe
