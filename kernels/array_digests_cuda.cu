#include "kernels/array_digests_arguments.h"
#include "kernels/cuda_arrays.cuh"
#include "kernels/cuda_stream.h"

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kTile = 1 << 14;

using Sum = unsigned long long;  // what atomicAdd takes

// A block takes a tile. Sums of integers are the same in any order, so atomic ones too.
template <typename Word>
__global__ void __launch_bounds__(kThreads)
    Digest(const __grid_constant__ TiledArrays in, Sum* __restrict__ digests) {
  const int block = static_cast<int>(blockIdx.x), index = in.ArrayOf(block);
  const FlatArray& array = in.arrays[index];
  const auto* __restrict__ words = static_cast<const Word*>(array.data);
  const int64_t begin = int64_t{block - in.first_block[index]} * kTile;
  const int64_t end = min(array.count, begin + kTile);
  Sum sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    sum += DigestTerm(static_cast<uint64_t>(i), words[i]);
  }
  sum = SumOfBlock<kThreads>(sum);
  if (threadIdx.x == 0) atomicAdd(digests + index, sum);
}

template <typename Word>
void DigestAll(const ArrayDigestsArguments& in) {
  ForEachLaunch(in.arrays, in.num_arrays, kTile,
                [&](const TiledArrays& list, unsigned blocks, int64_t first_array, int64_t) {
                  Digest<Word><<<blocks, kThreads, 0, CurrentStream()>>>(
                      list, reinterpret_cast<Sum*>(in.digests) + first_array);
                  CheckLaunch("ArrayDigests");
                });
}

}  // namespace

void ArrayDigests(const ArrayDigestsArguments& in) {
  (in.element_bytes == 8 ? DigestAll<uint64_t> : DigestAll<uint32_t>)(in);
}

}  // namespace hypermoe::cuda
