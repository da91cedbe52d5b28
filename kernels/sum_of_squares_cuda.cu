#include "kernels/cuda_arrays.cuh"
#include "kernels/cuda_stream.h"
#include "kernels/sum_of_squares_arguments.h"

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 512;

// A block takes a tile, whose sum goes to the place of its own.
template <typename Element>
__global__ void __launch_bounds__(kThreads)
    SumTiles(const __grid_constant__ TiledArrays in, double* __restrict__ tile_sums) {
  const int block = static_cast<int>(blockIdx.x), index = in.ArrayOf(block);
  const FlatArray& array = in.arrays[index];
  const auto* __restrict__ x = static_cast<const Element*>(array.data);
  const int64_t begin = int64_t{block - in.first_block[index]} * kSumOfSquaresTile;
  const int64_t end = min(array.count, begin + kSumOfSquaresTile);
  double sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double value = x[i];
    sum += value * value;
  }
  sum = SumOfBlock<kThreads>(sum);
  if (threadIdx.x == 0) tile_sums[block] = sum;
}

// One block.
__global__ void __launch_bounds__(kThreads)
    SumAll(const double* __restrict__ tile_sums, int64_t tiles, double* __restrict__ result) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < tiles; i += kThreads) sum += tile_sums[i];
  sum = SumOfBlock<kThreads>(sum);
  if (threadIdx.x == 0) *result = sum;
}

template <typename Element>
void SumTilesOfAll(const SumOfSquaresArguments& in) {
  ForEachLaunch(in.arrays, in.num_arrays, kSumOfSquaresTile,
                [&](const TiledArrays& list, unsigned blocks, int64_t, int64_t tiles_before) {
                  SumTiles<Element>
                      <<<blocks, kThreads, 0, CurrentStream()>>>(list, in.tile_sums + tiles_before);
                  CheckLaunch("SumOfSquares");
                });
}

}  // namespace

void SumOfSquares(const SumOfSquaresArguments& in) {
  (in.element == ElementType::kFloat64 ? SumTilesOfAll<double> : SumTilesOfAll<float>)(in);
  SumAll<<<1, kThreads, 0, CurrentStream()>>>(in.tile_sums, in.tiles(), in.sum);
  CheckLaunch("SumOfSquares");
}

}  // namespace hypermoe::cuda
