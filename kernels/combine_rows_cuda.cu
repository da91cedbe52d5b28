#include <algorithm>

#include "kernels/combine_rows_arguments.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_stream.h"
#include "kernels/cuda_warp.cuh"

namespace hypermoe::cuda {
namespace {

// A warp takes a token: its lanes stand beside each other in the row, so that loads and stores are
// whole sectors, and the dot products of the backward pass need no shared memory.
constexpr int kWarpsPerBlock = 8;

template <typename Element, typename Gate>
struct Rows {
  const Element* rows;
  const Gate* gate;
  const int64_t* position;
  const Element* base;
  bool base_in_row_order;
  int64_t tokens;
  int choices, width;

  explicit Rows(const CombineRowsArguments& in)
      : rows(static_cast<const Element*>(in.rows)),
        gate(static_cast<const Gate*>(in.gate)),
        position(in.position),
        base(static_cast<const Element*>(in.base)),
        base_in_row_order(in.base_in_row_order),
        tokens(in.tokens),
        choices(static_cast<int>(in.choices)),
        width(static_cast<int>(in.width)) {}
  __device__ int64_t PositionOf(int64_t choice) const {
    return position == nullptr ? choice : position[choice];
  }
  __device__ int64_t BaseRowOf(int64_t token) const {
    return base_in_row_order ? PositionOf(token) : token;
  }
};

__device__ int64_t TokenOfWarp() {
  return int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / kWarp;
}

template <int kPack, typename Element, typename Gate>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    Forward(Rows<Element, Gate> in, Element* __restrict__ y) {
  const int64_t token = TokenOfWarp();
  if (token >= in.tokens) return;
  for (int d = LaneOfWarp() * kPack; d < in.width; d += kWarp * kPack) {
    Gate sum[kPack] = {};
    if (in.base != nullptr) {
      const auto base = Pack<Element, kPack>::Load(in.base + in.BaseRowOf(token) * in.width + d);
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum[i] = ToSum<Gate>(base[i]);
    }
    for (int k = 0; k < in.choices; ++k) {
      const int64_t choice = token * in.choices + k;
      const Gate gate = in.gate[choice];
      const auto row = Pack<Element, kPack>::Load(in.rows + in.PositionOf(choice) * in.width + d);
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum[i] += gate * ToSum<Gate>(row[i]);
    }
    Pack<Element, kPack> out;
#pragma unroll
    for (int i = 0; i < kPack; ++i) out[i] = FromSum<Element>(sum[i]);
    out.Store(y + token * in.width + d);
  }
}

template <int kPack, typename Element, typename Gate>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    Backward(Rows<Element, Gate> in, const Element* __restrict__ grad_y,
             Element* __restrict__ grad_rows, Gate* __restrict__ grad_gate,
             Element* __restrict__ grad_base) {
  const int64_t token = TokenOfWarp();
  if (token >= in.tokens) return;
  for (int k = 0; k < in.choices; ++k) {
    const int64_t choice = token * in.choices + k, row = in.PositionOf(choice) * in.width;
    const Gate gate = in.gate[choice];
    Gate dot = 0;
    for (int d = LaneOfWarp() * kPack; d < in.width; d += kWarp * kPack) {
      const auto grad = Pack<Element, kPack>::Load(grad_y + token * in.width + d),
                 value = Pack<Element, kPack>::Load(in.rows + row + d);
      Pack<Element, kPack> out;
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const Gate g = ToSum<Gate>(grad[i]);
        out[i] = FromSum<Element>(gate * g);
        dot += g * ToSum<Gate>(value[i]);
      }
      out.Store(grad_rows + row + d);
      if (k == 0 && grad_base != nullptr) {
        grad.Store(grad_base + in.BaseRowOf(token) * in.width + d);
      }
    }
    dot = SumOfWarp(dot);
    if (LaneOfWarp() == 0) grad_gate[choice] = dot;
  }
}

// Calls launch(pack) with the widest loads that the arrays and the width allow.
template <typename Element, typename Launch>
void WithPack(const CombineRowsArguments& in, bool aligned, const Launch& launch) {
  constexpr int kPack = kPackOf<Element>;
  if (aligned && in.width % kPack == 0) {
    launch(std::integral_constant<int, kPack>());
  } else {
    launch(std::integral_constant<int, 1>());
  }
}

int BlocksOf(const CombineRowsArguments& in) {
  return static_cast<int>((in.tokens + kWarpsPerBlock - 1) / kWarpsPerBlock);
}

}  // namespace

void CombineRows(const CombineRowsArguments& in, void* y) {
  if (in.tokens == 0) return;
  WithElement(in.element, [&](auto element, auto gate) {
    using Element = decltype(element);
    WithPack<Element>(in, IsAligned(in.rows, in.base, y), [&](auto pack) {
      Forward<pack><<<BlocksOf(in), kWarp * kWarpsPerBlock, 0, CurrentStream()>>>(
          Rows<Element, decltype(gate)>(in), static_cast<Element*>(y));
    });
  });
  CheckLaunch("CombineRows");
}

void CombineRowsBackward(const CombineRowsArguments& in, const CombineRowsGradients& grad) {
  if (in.tokens == 0) return;
  WithElement(in.element, [&](auto element, auto gate) {
    using Element = decltype(element);
    using Gate = decltype(gate);
    WithPack<Element>(in, IsAligned(in.rows, grad.y, grad.rows, grad.base), [&](auto pack) {
      Backward<pack><<<BlocksOf(in), kWarp * kWarpsPerBlock, 0, CurrentStream()>>>(
          Rows<Element, Gate>(in), static_cast<const Element*>(grad.y),
          static_cast<Element*>(grad.rows), static_cast<Gate*>(grad.gate),
          static_cast<Element*>(grad.base));
    });
  });
  CheckLaunch("CombineRowsBackward");
}

}  // namespace hypermoe::cuda
