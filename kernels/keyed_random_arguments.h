// What the two implementations of filling with keyed random numbers are given (keyed_random.h).
// Free of LibTorch.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/element_type.h"
#include "kernels/random_key.h"

namespace hypermoe {

// What a number is made of: scale times a number of the standard normal distribution, or
// offset + scale times a uniform one.
struct NumberForm {
  bool normal;
  double offset, scale;
};

HYPERMOE_HOST_DEVICE inline double KeyedNumber(const NumberForm& form, const RandomKey& key,
                                               uint64_t index) {
  const UniformPair u = UniformPairAt(key, index);
  if (!form.normal) {
    // One rounding more than a multiply-add, which not every CPU has.
#ifdef __CUDA_ARCH__
    return __dadd_rn(form.offset, __dmul_rn(form.scale, u.first));
#else
    return form.offset + form.scale * u.first;
#endif
  }
  // Box and Muller; 1 - u lies in (0, 1], so that the logarithm is finite.
  constexpr double kTwoPi = 6.283185307179586;
  return form.scale * std::sqrt(-2.0 * std::log(1.0 - u.first)) * std::cos(kTwoPi * u.second);
}

struct KeyedFillArguments {
  ElementType element;
  void* data;  // [rows, width], contiguous, on the device of the implementation
  int64_t rows, width;
  const int64_t* row_ids;  // [rows], there too; null: `key` is every row's own
  RandomKey key;
  int64_t begin;  // the index of each row's first number
  NumberForm form;

  HYPERMOE_HOST_DEVICE RandomKey KeyOfRow(int64_t row) const {
    return row_ids == nullptr ? key : key.Derive(static_cast<uint64_t>(row_ids[row]));
  }
  HYPERMOE_HOST_DEVICE double NumberAt(const RandomKey& row_key, int64_t column) const {
    return KeyedNumber(form, row_key, static_cast<uint64_t>(begin + column));
  }
};

namespace cpu {
void KeyedFill(const KeyedFillArguments& in);
}

// On the current stream.
namespace cuda {
void KeyedFill(const KeyedFillArguments& in);
}

}  // namespace hypermoe
