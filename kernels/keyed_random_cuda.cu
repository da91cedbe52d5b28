#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_stream.h"
#include "kernels/keyed_random_arguments.h"

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 256;

template <typename Element, typename Sum>
__global__ void __launch_bounds__(kThreads) Fill(KeyedFillArguments in) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= in.rows * in.width) return;
  const int64_t row = in.row_ids == nullptr ? 0 : i / in.width;
  // To bfloat16 by way of float32, as on a CPU.
  const auto number = static_cast<Sum>(in.NumberAt(in.KeyOfRow(row), i - row * in.width));
  static_cast<Element*>(in.data)[i] = FromSum<Element>(number);
}

}  // namespace

void KeyedFill(const KeyedFillArguments& in) {
  const int64_t count = in.rows * in.width;
  if (count == 0) return;
  WithElement(in.element, [&](auto element, auto sum) {
    Fill<decltype(element), decltype(sum)>
        <<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0,
           CurrentStream()>>>(in);
  });
  CheckLaunch("KeyedFill");
}

}  // namespace hypermoe::cuda
