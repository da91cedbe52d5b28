// What ArrayDigests' two implementations are given, and what they sum up (array_digests.h). Free of
// LibTorch.
#pragma once

#include <cstdint>

#include "kernels/flat_array.h"
#include "kernels/host_device.h"
#include "kernels/random_key.h"

namespace hypermoe {

struct ArrayDigestsArguments {
  int element_bytes;        // 4 or 8
  const FlatArray* arrays;  // this list itself is on the host
  int64_t num_arrays;
  uint64_t* digests;  // on the device, zeros
};

// What the element at `index` adds to its array's digest, modulo 2^64. For one index it is a
// bijection of the bits, so that no change of one element is lost; and integers may be summed in
// any order.
HYPERMOE_HOST_DEVICE inline uint64_t DigestTerm(uint64_t index, uint64_t bits) {
  return MixBits(index * 0x9e3779b97f4a7c15ULL + bits);
}

namespace cpu {
void ArrayDigests(const ArrayDigestsArguments& in);
}

// On the current stream.
namespace cuda {
void ArrayDigests(const ArrayDigestsArguments& in);
}

}  // namespace hypermoe
