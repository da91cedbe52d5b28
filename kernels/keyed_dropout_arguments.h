// What the two implementations of dropout's mask are given (keyed_dropout.h). Free of LibTorch.
#pragma once

#include <cstdint>

#include "kernels/random_key.h"

namespace hypermoe {

// Contiguous arrays on the device of the implementation.
struct DropoutMaskArguments {
  RandomKey key;
  const int64_t* row_ids;  // [rows]
  int64_t rows, width;
  uint32_t threshold;  // an element is kept if its 24 random bits are not below this
  uint8_t* kept;       // [rows, width]: written, 1 or 0

  HYPERMOE_HOST_DEVICE RandomKey KeyOfRow(int64_t row) const {
    return key.Derive(static_cast<uint64_t>(row_ids[row]));
  }
  HYPERMOE_HOST_DEVICE uint8_t IsKept(uint32_t random) const { return (random >> 8) >= threshold; }
};

// Element j of a row takes word j of its sequence: word j % 4 at index j / 4.
constexpr int kWordsAtIndex = 4;

namespace cpu {
void DropoutMask(const DropoutMaskArguments& in);
}

// On the current stream.
namespace cuda {
void DropoutMask(const DropoutMaskArguments& in);
}

}  // namespace hypermoe
