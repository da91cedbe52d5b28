#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "kernels/route_sums_arguments.h"

namespace hypermoe {
namespace {

// Sums of one tile: `count` tokens from `first` on.
template <typename Element>
void SumTile(const RouteSumsArguments& in, int64_t first, int64_t count, Element* sum_probs,
             Element* sum_gates, int32_t* sum_choices) {
  std::fill_n(sum_probs, in.experts, Element{0});
  std::fill_n(sum_gates, in.experts, Element{0});
  std::fill_n(sum_choices, in.experts, 0);
  const auto* probs = static_cast<const Element*>(in.probs);
  const auto* gate = static_cast<const Element*>(in.gate);
  for (int64_t t = first; t < first + count; ++t) {
    for (int64_t n = 0; n < in.experts; ++n) sum_probs[n] += probs[t * in.experts + n];
    for (int64_t i = t * in.choices; i < (t + 1) * in.choices; ++i) {
      const int64_t id = in.ids[i];
      TORCH_CHECK(id >= 0 && id < in.experts, "SumRoutes: the expert ", id, " is outside [0, ",
                  in.experts, ")");
      sum_gates[id] += gate[i];
      ++sum_choices[id];
    }
  }
}

template <typename Element>
void Sum(const RouteSumsArguments& in) {
  const int64_t tiles = in.tiles();
  auto* tile_sums = static_cast<Element*>(in.tile_sums);
  at::parallel_for(0, in.rows * tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / tiles, in_row = i % tiles * kRouteSumsTile;
      Element* sums = tile_sums + i * 2 * in.experts;
      SumTile(in, row * in.row_tokens + in_row, std::min(kRouteSumsTile, in.row_tokens - in_row),
              sums, sums + in.experts, in.tile_choices + i * in.experts);
    }
  });
  for (int64_t row = 0; row < in.rows; ++row) {
    auto* probs = static_cast<Element*>(in.sum_probs) + row * in.experts;
    auto* gates = static_cast<Element*>(in.sum_gates) + row * in.experts;
    int64_t* choices = in.sum_choices + row * in.experts;
    std::fill_n(probs, in.experts, Element{0});
    std::fill_n(gates, in.experts, Element{0});
    std::fill_n(choices, in.experts, 0);
    for (int64_t i = row * tiles; i < (row + 1) * tiles; ++i) {
      const Element* sums = tile_sums + i * 2 * in.experts;
      for (int64_t n = 0; n < in.experts; ++n) {
        probs[n] += sums[n];
        gates[n] += sums[in.experts + n];
        choices[n] += in.tile_choices[i * in.experts + n];
      }
    }
  }
}

}  // namespace

namespace cpu {

void SumRoutes(const RouteSumsArguments& in) {
  (in.element == ElementType::kFloat64 ? Sum<double> : Sum<float>)(in);
}

}  // namespace cpu
}  // namespace hypermoe
