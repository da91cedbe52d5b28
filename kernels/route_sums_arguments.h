// What SumRoutes' two implementations are given (route_sums.h says what is summed). Free of
// LibTorch, whose headers take nvcc 19 seconds a file.
#pragma once

#include <cstdint>

#include "kernels/element_type.h"

namespace hypermoe {

// Rows are cut into tiles of so many tokens, which are summed beside each other and then one after
// the other, so that the sums do not depend on who makes them.
constexpr int64_t kRouteSumsTile = 128;

// Contiguous arrays on the device of the implementation.
struct RouteSumsArguments {
  ElementType element;  // float32 or float64
  int64_t rows, row_tokens, experts, choices;
  const void* probs;   // [rows, row_tokens, experts]
  const int64_t* ids;  // [rows, row_tokens, choices]
  const void* gate;    // [rows, row_tokens, choices]
  // Of the tiles: [rows, tiles, 2, experts] of probabilities and gates, [rows, tiles, experts] of
  // choices.
  void* tile_sums;
  int32_t* tile_choices;
  // [rows, experts]
  void *sum_probs, *sum_gates;
  int64_t* sum_choices;

  int64_t tiles() const { return (row_tokens + kRouteSumsTile - 1) / kRouteSumsTile; }
};

namespace cpu {
void SumRoutes(const RouteSumsArguments& in);
}  // namespace cpu

// On the current stream.
namespace cuda {
void SumRoutes(const RouteSumsArguments& in);
}  // namespace cuda

}  // namespace hypermoe
