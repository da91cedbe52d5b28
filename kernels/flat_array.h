// Arrays as kernels are given them that go over many at once. Free of LibTorch.
#pragma once

#include <cstdint>

namespace hypermoe {

// Contiguous, on the device of the implementation; what the elements are stands beside it.
struct FlatArray {
  const void* data;
  int64_t count;

  int64_t Tiles(int64_t tile) const { return (count + tile - 1) / tile; }
};

}  // namespace hypermoe
