#include <algorithm>

#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_stream.h"
#include "kernels/grouped_rows_arguments.h"

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostRowBlocks = 65535;  // of a grid's second axis

// The first group whose end is beyond the row; an empty group's never is.
__device__ int64_t GroupOfRow(const int32_t* ends, int64_t groups, int64_t row) {
  int64_t low = 0, high = groups - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ends[middle] > row) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

template <typename Sum>
__device__ Sum Activated(Sum x, Activation activation) {
  if (activation == Activation::kRelu) return x > 0 ? x : Sum{0};
  if (activation == Activation::kSilu) return x / (1 + exp(-x));
  if (activation == Activation::kGelu) {
    return x * Sum{0.5} * (1 + erf(x * static_cast<Sum>(0.70710678118654752440)));
  }
  const auto slope = static_cast<Sum>(0.79788456080286535588);  // sqrt(2 / pi)
  const auto cubic = static_cast<Sum>(0.044715);
  return x * Sum{0.5} * (1 + tanh(slope * (x + cubic * x * x * x)));
}

// A thread takes kPack columns of every row that its block works on.
template <int kPack, typename Element, typename Sum>
__global__ void __launch_bounds__(kThreads)
    AddAndActivate(int64_t rows, int64_t width, int64_t groups, const int32_t* __restrict__ ends,
                   Element* pre, const Element* __restrict__ bias, Activation activation,
                   Element* hidden) {
  const int64_t f = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kPack;
  if (f >= width) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    auto values = Pack<Element, kPack>::Load(pre + row * width + f);
    Pack<Element, kPack> out, added;
    if (bias != nullptr) {
      added = Pack<Element, kPack>::Load(bias + GroupOfRow(ends, groups, row) * width + f);
    }
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      Sum sum = ToSum<Sum>(values[i]);
      if (bias != nullptr) sum += ToSum<Sum>(added[i]);
      values[i] = FromSum<Element>(sum);
      if (hidden != nullptr) out[i] = FromSum<Element>(Activated(sum, activation));
    }
    if (bias != nullptr) values.Store(pre + row * width + f);
    if (hidden != nullptr) out.Store(hidden + row * width + f);
  }
}

// A block takes kColumns columns of one group: each row of threads sums every kStrands-th row, then
// the strands are added in their order.
constexpr int kColumns = 32, kStrands = 8;
template <typename Element, typename Sum>
__global__ void __launch_bounds__(kColumns* kStrands)
    SumOfGroups(int64_t width, const int32_t* __restrict__ ends, const Element* __restrict__ rows,
                Sum* __restrict__ sums) {
  const int64_t group = blockIdx.y, f = int64_t{blockIdx.x} * kColumns + threadIdx.x;
  const int64_t begin = group == 0 ? 0 : ends[group - 1], end = ends[group];
  __shared__ Sum strands[kStrands][kColumns];
  Sum sum = 0;
  if (f < width) {
    for (int64_t row = begin + threadIdx.y; row < end; row += kStrands) {
      sum += ToSum<Sum>(rows[row * width + f]);
    }
  }
  strands[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || f >= width) return;
  for (int strand = 1; strand < kStrands; ++strand) sum += strands[strand][threadIdx.x];
  sums[group * width + f] = sum;
}

unsigned Blocks(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

}  // namespace

void AddBiasAndActivate(const GroupedRows& in, void* pre, const void* bias, Activation activation,
                        void* hidden) {
  if (in.rows == 0 || in.width == 0) return;
  WithElement(in.element, [&](auto element, auto sum) {
    using Element = decltype(element);
    using Sum = decltype(sum);
    const auto launch = [&](auto pack) {
      const dim3 grid(Blocks(in.width, int64_t{kThreads} * pack),
                      static_cast<unsigned>(std::min<int64_t>(in.rows, kMostRowBlocks)));
      AddAndActivate<pack, Element, Sum><<<grid, kThreads, 0, CurrentStream()>>>(
          in.rows, in.width, in.groups, in.ends, static_cast<Element*>(pre),
          static_cast<const Element*>(bias), activation, static_cast<Element*>(hidden));
    };
    constexpr int kPack = kPackOf<Element>;
    if (in.width % kPack == 0 && IsAligned(pre, bias, hidden)) {
      launch(std::integral_constant<int, kPack>());
    } else {
      launch(std::integral_constant<int, 1>());
    }
  });
  CheckLaunch("AddBiasAndActivate");
}

void SumRowsOfGroups(const GroupedRows& in, const void* rows, void* sums) {
  if (in.groups == 0 || in.width == 0) return;
  WithElement(in.element, [&](auto element, auto sum) {
    const dim3 grid(Blocks(in.width, kColumns), static_cast<unsigned>(in.groups));
    SumOfGroups<<<grid, dim3(kColumns, kStrands), 0, CurrentStream()>>>(
        in.width, in.ends, static_cast<const decltype(element)*>(rows),
        static_cast<decltype(sum)*>(sums));
  });
  CheckLaunch("SumRowsOfGroups");
}

}  // namespace hypermoe::cuda
