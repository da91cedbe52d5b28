// What SumOfSquares' two implementations are given (sum_of_squares.h). Free of LibTorch.
#pragma once

#include <cstdint>

#include "kernels/element_type.h"
#include "kernels/flat_array.h"

namespace hypermoe {

// Arrays are cut into tiles of so many elements, which are summed beside each other and then one
// after the other, so that the sum does not depend on who makes them.
constexpr int64_t kSumOfSquaresTile = 1 << 15;

struct SumOfSquaresArguments {
  ElementType element;      // kFloat32 or kFloat64
  const FlatArray* arrays;  // this list itself is on the host
  int64_t num_arrays;
  // On the device: a number for each tile of all arrays, and the result.
  double *tile_sums, *sum;

  int64_t tiles() const {
    int64_t tiles = 0;
    for (int64_t i = 0; i < num_arrays; ++i) tiles += arrays[i].Tiles(kSumOfSquaresTile);
    return tiles;
  }
};

namespace cpu {
void SumOfSquares(const SumOfSquaresArguments& in);
}

// On the current stream.
namespace cuda {
void SumOfSquares(const SumOfSquaresArguments& in);
}

}  // namespace hypermoe
