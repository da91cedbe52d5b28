#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>

#include "kernels/adamw_update_arguments.h"
#include "kernels/element_type_of.h"

namespace hypermoe {
namespace {

// Compiled for several instruction sets, of which one is chosen when the program starts. GCC 12
// does not clone templates.
#define HYPERMOE_UPDATE(Scalar)                                                   \
  [[gnu::target_clones("avx512f", "avx2", "default")]] void Update(               \
      Scalar* __restrict x, const Scalar* __restrict g, Scalar* __restrict m,     \
      Scalar* __restrict v, int64_t count, const AdamWScalars<Scalar>& factors) { \
    const AdamWScalars<Scalar> f = factors;                                       \
    for (int64_t i = 0; i < count; ++i) UpdateElement(x[i], g[i], m[i], v[i], f); \
  }
HYPERMOE_UPDATE(float)
HYPERMOE_UPDATE(double)
#undef HYPERMOE_UPDATE

template <typename Scalar>
void UpdateArrays(const AdamWArrays& piece, const AdamWScalars<Scalar>& factors) {
  auto* x = static_cast<Scalar*>(piece.value);
  const auto* g = static_cast<const Scalar*>(piece.gradient);
  auto *m = static_cast<Scalar*>(piece.m), *v = static_cast<Scalar*>(piece.v);
  auto* copy = static_cast<c10::BFloat16*>(piece.copy);
  constexpr int64_t kGrain = 1 << 15;
  at::parallel_for(0, piece.count, kGrain, [&](int64_t begin, int64_t end) {
    // In parts that are still in a cache when they are copied.
    for (int64_t i = begin; i < end; i += kGrain) {
      const int64_t count = std::min(kGrain, end - i);
      Update(x + i, g + i, m + i, v + i, count, factors);
      if (copy == nullptr) continue;
      for (int64_t j = i; j < i + count; ++j) copy[j] = static_cast<c10::BFloat16>(x[j]);
    }
  });
}

}  // namespace

namespace cpu {

void AdamWUpdate(const AdamWUpdateArguments& in) {
  if (in.skip != nullptr && *in.skip) return;
  WithElementType(in.element, [&](auto element, auto) {
    using Scalar = decltype(element);
    if constexpr (!std::is_same_v<Scalar, c10::BFloat16>) {
      AdamWScalars<Scalar> factors(in);
      if (in.device_gradient_scale != nullptr) {
        factors.gradient_scale = static_cast<Scalar>(in.gradient_scale * *in.device_gradient_scale);
      }
      for (int64_t i = 0; i < in.num_pieces; ++i) {
        factors.value_decay = static_cast<Scalar>(in.pieces[i].value_decay);
        UpdateArrays(in.pieces[i], factors);
      }
    }
  });
}

}  // namespace cpu
}  // namespace hypermoe
