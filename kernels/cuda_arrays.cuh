// Many arrays in one launch: each is cut into tiles, of which a block takes one.
#pragma once

#include <cstdint>

#include "kernels/cuda_warp.cuh"
#include "kernels/flat_array.h"

namespace hypermoe::cuda {

// To a launch, whose arguments have room for 4096 bytes.
constexpr int kArraysPerLaunch = 128;

struct TiledArrays {
  FlatArray arrays[kArraysPerLaunch];
  int first_block[kArraysPerLaunch];  // of those that work on the array
  int size;

  // The array that a block works on.
  __device__ int ArrayOf(int block) const {
    int i = 0;
    while (i + 1 < size && first_block[i + 1] <= block) ++i;
    return i;
  }
};

static_assert(sizeof(TiledArrays) <= 4000);

// Calls launch(arrays, blocks, index of the first array, tiles of all arrays before) until all
// arrays have had their turn. Empty ones get no block.
template <typename Launch>
void ForEachLaunch(const FlatArray* arrays, int64_t num_arrays, int64_t tile,
                   const Launch& launch) {
  int64_t tiles_before = 0;
  for (int64_t begin = 0; begin < num_arrays; begin += kArraysPerLaunch) {
    TiledArrays list = {};
    int64_t blocks = 0;
    for (int64_t i = begin; i < num_arrays && list.size < kArraysPerLaunch; ++i) {
      list.arrays[list.size] = arrays[i];
      list.first_block[list.size++] = static_cast<int>(blocks);
      blocks += arrays[i].Tiles(tile);
    }
    if (blocks > 0) launch(list, static_cast<unsigned>(blocks), begin, tiles_before);
    tiles_before += blocks;
  }
}

// The sum of what the threads of a block have, for thread 0; always made in the same order. By all
// kThreads of them together, once in a kernel.
template <int kThreads, typename Number>
__device__ Number SumOfBlock(Number value) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ Number of_warp[kWarps];
  value = SumOfWarp(value);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (LaneOfWarp() == 0) of_warp[warp] = value;
  __syncthreads();
  if (threadIdx.x != 0) return value;
  Number sum = of_warp[0];
  for (int i = 1; i < kWarps; ++i) sum += of_warp[i];
  return sum;
}

}  // namespace hypermoe::cuda
