#include "kernels/accumulate.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

namespace hypermoe {
namespace {

constexpr int64_t kGrainElements = 1 << 15;

// One version of the loop is chosen when the program starts.
[[gnu::target_clones("avx512f", "avx2", "default")]] void Add(
    float* __restrict sum, const c10::BFloat16* __restrict addend, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sum[i] += static_cast<float>(addend[i]);
}

}  // namespace

void Accumulate(const at::Tensor& sum, const at::Tensor& addend) {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(sum.sizes() == addend.sizes(), "Accumulate: a sum of shape ", sum.sizes(),
              " does not take ", addend.sizes());
  if (!sum.is_cpu() || !addend.is_cpu() || sum.scalar_type() != at::kFloat ||
      addend.scalar_type() != at::kBFloat16 || !sum.is_contiguous() || !addend.is_contiguous()) {
    sum.add_(addend);
    return;
  }
  float* to = sum.mutable_data_ptr<float>();
  const auto* from = addend.const_data_ptr<c10::BFloat16>();
  at::parallel_for(0, sum.numel(), kGrainElements,
                   [&](int64_t begin, int64_t end) { Add(to + begin, from + begin, end - begin); });
}

}  // namespace hypermoe
