#include <ATen/Parallel.h>

#include <algorithm>
#include <array>

#include "kernels/sum_of_squares_arguments.h"

namespace hypermoe {
namespace {

template <typename Element>
double SumOfTile(const Element* x, int64_t count) {
  // Independent sums: one alone would wait for its own last addition each time.
  constexpr int kLanes = 8;
  std::array<double, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = x[i + lane];
      sums[lane] += value * value;
    }
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(x[i]) * x[i];
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

template <typename Element>
double SumOfArray(const FlatArray& array, double* tile_sums) {
  const auto* x = static_cast<const Element*>(array.data);
  const int64_t tiles = array.Tiles(kSumOfSquaresTile);
  at::parallel_for(0, tiles, /*grain_size=*/4, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kSumOfSquaresTile;
      tile_sums[tile] = SumOfTile(x + first, std::min(kSumOfSquaresTile, array.count - first));
    }
  });
  double total = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) total += tile_sums[tile];
  return total;
}

}  // namespace

namespace cpu {

void SumOfSquares(const SumOfSquaresArguments& in) {
  *in.sum = 0;
  double* tile_sums = in.tile_sums;
  for (int64_t i = 0; i < in.num_arrays; ++i) {
    const FlatArray& array = in.arrays[i];
    *in.sum += in.element == ElementType::kFloat64 ? SumOfArray<double>(array, tile_sums)
                                                   : SumOfArray<float>(array, tile_sums);
    tile_sums += array.Tiles(kSumOfSquaresTile);
  }
}

}  // namespace cpu
}  // namespace hypermoe
