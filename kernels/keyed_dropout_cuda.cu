#include "kernels/cuda_stream.h"
#include "kernels/keyed_dropout_arguments.h"

namespace hypermoe::cuda {
namespace {

constexpr int kThreads = 256;

// A thread takes the elements that the words at one index decide about.
__global__ void __launch_bounds__(kThreads)
    Mask(DropoutMaskArguments in, int64_t indices_per_row, bool whole) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (thread >= in.rows * indices_per_row) return;
  const int64_t row = thread / indices_per_row, index = thread - row * indices_per_row;
  const RandomWords random = RandomWordsAt(in.KeyOfRow(row), static_cast<uint64_t>(index));
  const int64_t column = index * kWordsAtIndex;
  uint8_t* kept = in.kept + row * in.width + column;
  if (whole) {
    *reinterpret_cast<uchar4*>(kept) =
        make_uchar4(in.IsKept(random.words[0]), in.IsKept(random.words[1]),
                    in.IsKept(random.words[2]), in.IsKept(random.words[3]));
    return;
  }
#pragma unroll
  for (int i = 0; i < kWordsAtIndex; ++i) {
    if (column + i < in.width) kept[i] = in.IsKept(random.words[i]);
  }
}

}  // namespace

void DropoutMask(const DropoutMaskArguments& in) {
  const int64_t indices_per_row = (in.width + kWordsAtIndex - 1) / kWordsAtIndex;
  const int64_t threads = in.rows * indices_per_row;
  if (threads == 0) return;
  // Four bytes are stored at once where rows begin at, and end with, a multiple of four.
  const bool whole =
      in.width % kWordsAtIndex == 0 && reinterpret_cast<uintptr_t>(in.kept) % sizeof(uchar4) == 0;
  Mask<<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0,
         CurrentStream()>>>(in, indices_per_row, whole);
  CheckLaunch("DropoutMask");
}

}  // namespace hypermoe::cuda
