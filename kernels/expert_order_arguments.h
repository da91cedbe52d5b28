// What OrderByExpert's two implementations are given (expert_order.h has what they answer). Free of
// LibTorch, whose headers take nvcc 19 seconds a file.
#pragma once

#include <cstdint>

namespace hypermoe {

// Choices that a block of the GPU sorts.
constexpr int64_t kExpertOrderTile = 2048;

// Contiguous arrays on the device of the implementation.
struct ExpertOrderArguments {
  const int64_t* ids;  // [choices]
  int64_t choices, experts;
  int64_t *order, *inverse;  // [choices]
  int64_t* counts;           // [experts + 2]
  int32_t* scratch;          // [experts + 2, tiles of choices]; the CPU needs none
};

namespace cpu {
void OrderByExpert(const ExpertOrderArguments& in);
}  // namespace cpu

// On the current stream.
namespace cuda {
void OrderByExpert(const ExpertOrderArguments& in);
}  // namespace cuda

}  // namespace hypermoe
