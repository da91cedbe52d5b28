#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/cuda_warp.cuh"
#include "kernels/route_sums_arguments.h"

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 256;

template <typename Element>
struct Routes {
  const Element *probs, *gate;
  const int64_t* ids;
  int64_t rows, row_tokens, tiles;
  int experts, choices;

  explicit Routes(const RouteSumsArguments& in)
      : probs(static_cast<const Element*>(in.probs)),
        gate(static_cast<const Element*>(in.gate)),
        ids(in.ids),
        rows(in.rows),
        row_tokens(in.row_tokens),
        tiles(in.tiles()),
        experts(static_cast<int>(in.experts)),
        choices(static_cast<int>(in.choices)) {}
};

// A block takes a tile. Its threads stand in `columns` (a power of two) beside each other, an
// expert each, and in strands, of which s takes tokens s, s + strands, ... of the tile.
template <typename Element>
__global__ void __launch_bounds__(kThreads)
    SumTiles(Routes<Element> in, int columns, Element* __restrict__ tile_sums,
             int32_t* __restrict__ tile_choices) {
  __shared__ Element probs[kThreads], gates[kThreads];
  __shared__ int choices[kThreads];
  const int thread = threadIdx.x, column = thread % columns, strand = thread / columns,
            strands = kThreads / columns;
  const int64_t row = blockIdx.x / in.tiles, in_row = blockIdx.x % in.tiles * kRouteSumsTile;
  const int64_t first = row * in.row_tokens + in_row,
                count = min(kRouteSumsTile, in.row_tokens - in_row);
  for (int begin = 0; begin < in.experts; begin += columns) {
    const int expert = begin + column;
    Element sum_probs = 0, sum_gates = 0;
    int sum_choices = 0;
    if (expert < in.experts) {
      for (int64_t t = first + strand; t < first + count; t += strands) {
        sum_probs += in.probs[t * in.experts + expert];
        for (int64_t i = t * in.choices; i < (t + 1) * in.choices; ++i) {
          if (in.ids[i] == expert) {
            sum_gates += in.gate[i];
            ++sum_choices;
          }
        }
      }
    }
    probs[thread] = sum_probs;
    gates[thread] = sum_gates;
    choices[thread] = sum_choices;
    // Always in the same order, so the same bits.
    for (int half = strands / 2; half > 0; half /= 2) {
      __syncthreads();
      if (strand < half) {
        probs[thread] += probs[thread + half * columns];
        gates[thread] += gates[thread + half * columns];
        choices[thread] += choices[thread + half * columns];
      }
    }
    // The first strand reads what it wrote itself, and all write again at the next experts.
    if (strand == 0 && expert < in.experts) {
      const int64_t tile = blockIdx.x;
      tile_sums[tile * 2 * in.experts + expert] = probs[thread];
      tile_sums[(tile * 2 + 1) * in.experts + expert] = gates[thread];
      tile_choices[tile * in.experts + expert] = choices[thread];
    }
    __syncthreads();
  }
}

// A warp takes an expert of a row.
template <typename Element>
__global__ void __launch_bounds__(kThreads)
    SumRows(Routes<Element> in, const Element* __restrict__ tile_sums,
            const int32_t* __restrict__ tile_choices, Element* __restrict__ sum_probs,
            Element* __restrict__ sum_gates, int64_t* __restrict__ sum_choices) {
  const int64_t index = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (index >= in.rows * in.experts) return;
  const int64_t row = index / in.experts, expert = index % in.experts;
  const int lane = threadIdx.x % kWarp;
  Element probs = 0, gates = 0;
  int64_t choices = 0;
  for (int64_t tile = row * in.tiles + lane; tile < (row + 1) * in.tiles; tile += kWarp) {
    probs += tile_sums[tile * 2 * in.experts + expert];
    gates += tile_sums[(tile * 2 + 1) * in.experts + expert];
    choices += tile_choices[tile * in.experts + expert];
  }
  probs = SumOfWarp(probs);
  gates = SumOfWarp(gates);
  choices = SumOfWarp(choices);
  if (lane != 0) return;
  sum_probs[index] = probs;
  sum_gates[index] = gates;
  sum_choices[index] = choices;
}

// The least power of two that has room for the experts, or all threads of a block.
int ColumnsOf(int64_t experts) {
  int columns = 1;
  while (columns < experts && columns < kThreads) columns *= 2;
  return columns;
}

template <typename Element>
void Sum(const RouteSumsArguments& in) {
  const Routes<Element> routes(in);
  const int64_t tiles = in.rows * in.tiles();
  if (tiles > 0) {
    SumTiles<<<static_cast<unsigned>(tiles), kThreads, 0, CurrentStream()>>>(
        routes, ColumnsOf(in.experts), static_cast<Element*>(in.tile_sums), in.tile_choices);
    CheckLaunch("SumRoutes");
  }
  constexpr int kWarps = kThreads / kWarp;
  const int64_t blocks = (in.rows * in.experts + kWarps - 1) / kWarps;
  if (blocks == 0) return;
  SumRows<<<static_cast<unsigned>(blocks), kThreads, 0, CurrentStream()>>>(
      routes, static_cast<const Element*>(in.tile_sums), in.tile_choices,
      static_cast<Element*>(in.sum_probs), static_cast<Element*>(in.sum_gates), in.sum_choices);
  CheckLaunch("SumRoutes");
}

}  // namespace

void SumRoutes(const RouteSumsArguments& in) {
  (in.element == ElementType::kFloat64 ? Sum<double> : Sum<float>)(in);
}

}  // namespace hypermoe::cuda
