#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/cuda_warp.cuh"
#include "kernels/expert_order_arguments.h"

// The ids are cut into tiles, one a block: counts by expert and tile, their exclusive sums, and
// then every block knows where its first choice of each expert goes. Ids outside the range are one
// more expert, behind the others.

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = static_cast<int>(kExpertOrderTile);
// What a block gets without asking for more.
constexpr int64_t kSharedBytes = 48 * 1024;

struct Ids {
  const int64_t* ids;
  int choices, experts, tiles;

  explicit Ids(const ExpertOrderArguments& in)
      : ids(in.ids),
        choices(static_cast<int>(in.choices)),
        experts(static_cast<int>(in.experts)),
        tiles((choices + kTile - 1) / kTile) {}
  // With the one for ids outside the range.
  __host__ __device__ int buckets() const { return experts + 1; }
  __device__ int BeginOfBlock() const { return static_cast<int>(blockIdx.x) * kTile; }
  __device__ int BucketOf(int choice) const {
    const int64_t id = ids[choice];
    return id >= 0 && id < experts ? static_cast<int>(id) : experts;
  }
};

// Fills table[bucket, tile], and behind the buckets the row of descents by tile.
__global__ void __launch_bounds__(kThreads) CountTiles(Ids in, int32_t* __restrict__ table) {
  extern __shared__ int count[];  // [buckets + 1]
  for (int b = threadIdx.x; b <= in.buckets(); b += kThreads) count[b] = 0;
  __syncthreads();
  const int begin = in.BeginOfBlock(), end = min(begin + kTile, in.choices);
  // Sums of integers, which have no order.
  for (int i = begin + threadIdx.x; i < end; i += kThreads) {
    atomicAdd(&count[in.BucketOf(i)], 1);
    if (i > 0 && in.ids[i - 1] > in.ids[i]) atomicAdd(&count[in.buckets()], 1);
  }
  __syncthreads();
  for (int b = threadIdx.x; b <= in.buckets(); b += kThreads) {
    table[int64_t{b} * in.tiles + blockIdx.x] = count[b];
  }
}

// The sum of the values of all threads before this one, and in `total` that of all. Called by the
// whole block; sums: [warps of the block].
__device__ int ExclusiveSum(int value, int* sums, int* total) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int inclusive = value;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int before = __shfl_up_sync(~0U, inclusive, step);
    if (lane >= step) inclusive += before;
  }
  if (lane == kWarp - 1) sums[warp] = inclusive;
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) {
    if (w < warp) before += sums[w];
    all += sums[w];
  }
  __syncthreads();  // before the next call writes sums
  *total = all;
  return before + inclusive - value;
}

// A block takes a row of the table: sums over tiles, in place, and their total into counts.
__global__ void __launch_bounds__(kThreads)
    SumTiles(int tiles, int32_t* __restrict__ table, int64_t* __restrict__ counts) {
  __shared__ int sums[kThreads / kWarp];
  int32_t* row = table + int64_t{blockIdx.x} * tiles;
  int carry = 0;
  for (int first = 0; first < tiles; first += kThreads) {
    const int tile = first + static_cast<int>(threadIdx.x);
    int total;
    const int before = ExclusiveSum(tile < tiles ? row[tile] : 0, sums, &total);
    if (tile < tiles) row[tile] = carry + before;
    carry += total;
  }
  if (threadIdx.x == 0) counts[blockIdx.x] = carry;
}

// Each warp takes a part of the tile, in order.
__global__ void __launch_bounds__(kThreads)
    PlaceTiles(Ids in, const int32_t* __restrict__ table, const int64_t* __restrict__ counts,
               int64_t* __restrict__ order, int64_t* __restrict__ inverse) {
  extern __shared__ int next[];  // [warps, buckets]
  __shared__ int sums[kThreads / kWarp];
  const int threads = blockDim.x, warps = threads / kWarp, buckets = in.buckets();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int part = kTile / warps;
  const int begin = in.BeginOfBlock() + warp * part, end = min(begin + part, in.choices);
  int* mine = next + warp * buckets;

  for (int i = threadIdx.x; i < warps * buckets; i += threads) next[i] = 0;
  __syncthreads();
  for (int i = begin + lane; i < end; i += kWarp) atomicAdd(&mine[in.BucketOf(i)], 1);
  __syncthreads();
  // From counts to first positions: those of the experts before, of the tiles before, and of the
  // warps before.
  int carry = 0;
  for (int first = 0; first < buckets; first += threads) {
    const int bucket = first + static_cast<int>(threadIdx.x);
    int total;
    const int before =
        ExclusiveSum(bucket < buckets ? static_cast<int>(counts[bucket]) : 0, sums, &total);
    if (bucket < buckets) {
      int position = carry + before + table[int64_t{bucket} * in.tiles + blockIdx.x];
      for (int w = 0; w < warps; ++w) {
        const int count = next[w * buckets + bucket];
        next[w * buckets + bucket] = position;
        position += count;
      }
    }
    carry += total;
  }
  __syncthreads();
  for (int first = begin; first < end; first += kWarp) {
    const int i = first + lane;
    const int bucket = i < end ? in.BucketOf(i) : -1;
    const unsigned peers = __match_any_sync(~0U, bucket);
    const int rank = __popc(peers & ((1U << lane) - 1));
    const int position = bucket >= 0 ? mine[bucket] + rank : 0;
    __syncwarp();  // all have read before one writes
    if (bucket >= 0) {
      if (rank == 0) mine[bucket] += __popc(peers);
      order[position] = i;
      inverse[i] = position;
    }
    __syncwarp();
  }
}

}  // namespace

void OrderByExpert(const ExpertOrderArguments& in) {
  const Ids ids(in);
  const auto bytes = [](int64_t ints) { return ints * static_cast<int64_t>(sizeof(int)); };
  if (ids.tiles > 0) {
    CountTiles<<<ids.tiles, kThreads, bytes(ids.buckets() + 1), CurrentStream()>>>(ids, in.scratch);
    CheckLaunch("OrderByExpert");
  }
  // Without tiles too, for the counts.
  SumTiles<<<ids.buckets() + 1, kThreads, 0, CurrentStream()>>>(ids.tiles, in.scratch, in.counts);
  CheckLaunch("OrderByExpert");
  if (ids.tiles == 0) return;
  // As many warps as have room for their positions, the few sums aside; a power of two, so that the
  // parts of a tile are equal.
  int warps = kThreads / kWarp;
  while (warps > 1 && bytes(int64_t{warps} * ids.buckets()) > kSharedBytes - 1024) warps /= 2;
  PlaceTiles<<<ids.tiles, warps * kWarp, bytes(int64_t{warps} * ids.buckets()), CurrentStream()>>>(
      ids, in.scratch, in.counts, in.order, in.inverse);
  CheckLaunch("OrderByExpert");
}

}  // namespace hypermoe::cuda
