#include <ATen/Parallel.h>

#include <cstring>

#include "kernels/array_digests_arguments.h"

namespace hypermoe {
namespace {

// Of the elements begin .. end.
template <typename Word>
uint64_t DigestOfRange(const FlatArray& array, int64_t begin, int64_t end) {
  const auto* bytes = static_cast<const char*>(array.data);
  uint64_t digest = 0;
  for (int64_t i = begin; i < end; ++i) {
    Word bits;
    std::memcpy(&bits, bytes + i * sizeof(Word), sizeof(Word));
    digest += DigestTerm(static_cast<uint64_t>(i), bits);
  }
  return digest;
}

}  // namespace

namespace cpu {

void ArrayDigests(const ArrayDigestsArguments& in) {
  constexpr int64_t kGrain = 1 << 15;
  for (int64_t i = 0; i < in.num_arrays; ++i) {
    const FlatArray& array = in.arrays[i];
    in.digests[i] = at::parallel_reduce(
        0, array.count, kGrain, uint64_t{0},
        [&](int64_t begin, int64_t end, uint64_t before) {
          return before + (in.element_bytes == 8 ? DigestOfRange<uint64_t>(array, begin, end)
                                                 : DigestOfRange<uint32_t>(array, begin, end));
        },
        [](uint64_t a, uint64_t b) { return a + b; });
  }
}

}  // namespace cpu
}  // namespace hypermoe
