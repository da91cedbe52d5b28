#include <cmath>
#include <limits>

#include "kernels/cross_entropy_arguments.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_stream.h"
#include "kernels/cuda_warp.cuh"

namespace hypermoe::cuda {
namespace {

// A block takes a token.
constexpr int kThreads = 512, kWarps = kThreads / kWarp;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

// Calls body(size, v) for the thread's part of a row: `size`, a compile-time number, elements from
// v on, together every element once. Rows of an odd vocabulary begin anywhere, so that each has its
// own elements before the first access of 16 bytes.
template <typename Element, typename Body>
__device__ void ForEachPackOfRow(const Element* row, int width, const Body& body) {
  constexpr int kPack = kPackOf<Element>;
  const int past =
      static_cast<int>(reinterpret_cast<uintptr_t>(row) % kAccessBytes / sizeof(Element));
  const int head = min(width, (kPack - past) % kPack), packs = (width - head) / kPack;
  const int thread = static_cast<int>(threadIdx.x), tail = head + packs * kPack;
  if (thread < head) body(std::integral_constant<int, 1>(), thread);
  for (int p = thread; p < packs; p += kThreads) {
    body(std::integral_constant<int, kPack>(), head + p * kPack);
  }
  if (thread < width - tail) body(std::integral_constant<int, 1>(), tail + thread);
}

// log(sum of exp(x)) of what was added, kept as max + log(sum of exp(x - max)) so that no logit is
// too large. NaN is no max, but makes the sum one.
template <typename Sum>
struct LogSum {
  Sum max = -kInfinity, sum = 0;

  // Of what has a max of its own: sum of exp(x - max).
  __device__ void Add(Sum other_max, Sum other_sum) {
    Raise(other_max);
    sum += other_sum * std::exp(other_max - Shift());
  }
  __device__ void Raise(Sum to) {
    if (!(to > max)) return;
    sum *= std::exp(max - to);
    max = to;
  }
  // Where nothing, or nothing but -inf, was added, inf - inf would be NaN.
  __device__ Sum Shift() const { return max == -kInfinity ? Sum{0} : max; }
  __device__ Sum Value() const { return Shift() + std::log(sum); }
};

// Of all lanes' sums, right in lane 0; always in the same order, so the same bits.
template <typename Sum>
__device__ void AddOverWarp(LogSum<Sum>& value) {
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) {
    const Sum max = __shfl_down_sync(~0U, value.max, half);
    const Sum sum = __shfl_down_sync(~0U, value.sum, half);
    value.Add(max, sum);
  }
}

// The same of all threads' sums, right in thread 0.
template <typename Sum>
__device__ void AddOverBlock(LogSum<Sum>& value) {
  __shared__ Sum max_of_warp[kWarps], sum_of_warp[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  AddOverWarp(value);
  if (lane == 0) {
    max_of_warp[warp] = value.max;
    sum_of_warp[warp] = value.sum;
  }
  __syncthreads();
  if (warp > 0) return;
  value = {};
  if (lane < kWarps) value.Add(max_of_warp[lane], sum_of_warp[lane]);
  AddOverWarp(value);
}

template <typename Element, typename Sum>
__global__ void __launch_bounds__(kThreads)
    Forward(CrossEntropyArguments in, const Element* __restrict__ logits, Sum* __restrict__ lse,
            Sum* __restrict__ loss) {
  const int64_t token = blockIdx.x, label = in.labels[token];
  if (label == in.ignored) {
    if (threadIdx.x == 0) lse[token] = loss[token] = 0;
    return;
  }
  const Element* row = logits + token * in.vocabulary;
  LogSum<Sum> total;
  ForEachPackOfRow(row, static_cast<int>(in.vocabulary), [&](auto size, int v) {
    constexpr int kSize = decltype(size)::value;
    const auto pack = Pack<Element, kSize>::Load(row + v);
    Sum x[kSize], max = -kInfinity;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      x[i] = ToSum<Sum>(pack[i]);
      if (x[i] > max) max = x[i];
    }
    total.Raise(max);
    const Sum shift = total.Shift();
#pragma unroll
    for (int i = 0; i < kSize; ++i) total.sum += std::exp(x[i] - shift);
  });
  AddOverBlock(total);
  if (threadIdx.x > 0) return;
  const bool exists = 0 <= label && label < in.vocabulary;
  lse[token] = total.Value();
  loss[token] = exists ? total.Value() - ToSum<Sum>(row[label]) : Sum{kNotANumber};
}

template <typename Element, typename Sum>
__global__ void __launch_bounds__(kThreads)
    Backward(CrossEntropyArguments in, const Sum* __restrict__ lse, const Sum* __restrict__ factor,
             Element* __restrict__ logits) {
  const int64_t token = blockIdx.x, label = in.labels[token];
  const bool counts = label != in.ignored, exists = 0 <= label && label < in.vocabulary;
  const Sum scale = exists ? *factor : Sum{kNotANumber}, shift = lse[token];
  Element* row = logits + token * in.vocabulary;
  ForEachPackOfRow(row, static_cast<int>(in.vocabulary), [&](auto size, int v) {
    constexpr int kSize = decltype(size)::value;
    Pack<Element, kSize> out = {};
    if (counts) {
      const auto pack = Pack<Element, kSize>::Load(row + v);
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const Sum chosen = v + i == label ? 1 : 0;
        out[i] = FromSum<Element>(scale * (std::exp(ToSum<Sum>(pack[i]) - shift) - chosen));
      }
    }
    out.Store(row + v);
  });
}

}  // namespace

void CrossEntropy(const CrossEntropyArguments& in, const void* logits, void* lse, void* loss) {
  if (in.tokens == 0) return;
  WithElement(in.element, [&](auto element, auto sum) {
    using Sum = decltype(sum);
    Forward<<<static_cast<unsigned>(in.tokens), kThreads, 0, CurrentStream()>>>(
        in, static_cast<const decltype(element)*>(logits), static_cast<Sum*>(lse),
        static_cast<Sum*>(loss));
  });
  CheckLaunch("CrossEntropy");
}

void CrossEntropyBackward(const CrossEntropyArguments& in, const void* lse, const void* factor,
                          void* logits) {
  if (in.tokens == 0) return;
  WithElement(in.element, [&](auto element, auto sum) {
    using Sum = decltype(sum);
    Backward<<<static_cast<unsigned>(in.tokens), kThreads, 0, CurrentStream()>>>(
        in, static_cast<const Sum*>(lse), static_cast<const Sum*>(factor),
        static_cast<decltype(element)*>(logits));
  });
  CheckLaunch("CrossEntropyBackward");
}

}  // namespace hypermoe::cuda
