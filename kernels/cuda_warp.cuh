// A warp's lanes and what they add up.
#pragma once

namespace hypermoe::cuda {

constexpr int kWarp = 32;

__device__ inline int LaneOfWarp() { return static_cast<int>(threadIdx.x) % kWarp; }

// Every lane gets the same, always made in the same order, so the same bits. By all lanes together.
template <typename Number>
__device__ Number SumOfWarp(Number value) {
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) value += __shfl_xor_sync(~0U, value, half);
  return value;
}

}  // namespace hypermoe::cuda
