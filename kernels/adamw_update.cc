#include "kernels/adamw_update.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <cmath>

namespace hypermoe {
namespace {

template <typename Scalar>
struct Factors {
  Scalar gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size,
      second_correction, epsilon, value_decay;
};

template <typename Scalar>
[[gnu::always_inline]] inline void UpdateElements(Scalar* __restrict x, const Scalar* __restrict g,
                                                  Scalar* __restrict m, Scalar* __restrict v,
                                                  int64_t count, const Factors<Scalar> f) {
  for (int64_t i = 0; i < count; ++i) {
    const Scalar gradient = g[i] * f.gradient_scale;
    const Scalar first = f.beta1 * m[i] + f.one_minus_beta1 * gradient;
    const Scalar second = f.beta2 * v[i] + f.one_minus_beta2 * (gradient * gradient);
    m[i] = first;
    v[i] = second;
    x[i] = x[i] * f.value_decay -
           f.step_size * first / (std::sqrt(second * f.second_correction) + f.epsilon);
  }
}

// Compiled for several instruction sets, of which one is chosen when the program starts, and
// without fused multiply-add (CMakeLists.txt): the compiler gives that to whole vectors, but not to
// the elements after the last one. GCC 12 does not clone templates.
#define HYPERMOE_CLONES [[gnu::target_clones("avx512f", "avx2", "default")]]

HYPERMOE_CLONES void Update(float* x, const float* g, float* m, float* v, int64_t count,
                            const Factors<float>& factors) {
  UpdateElements(x, g, m, v, count, factors);
}
HYPERMOE_CLONES void Update(double* x, const double* g, double* m, double* v, int64_t count,
                            const Factors<double>& factors) {
  UpdateElements(x, g, m, v, count, factors);
}

template <typename Scalar>
void Run(const at::Tensor& value, const at::Tensor& gradient, const at::Tensor& m,
         const at::Tensor& v, const AdamWFactors& factors) {
  const auto narrow = [](double x) { return static_cast<Scalar>(x); };
  const Factors<Scalar> f = {narrow(factors.gradient_scale),    narrow(factors.beta1),
                             narrow(1 - factors.beta1),         narrow(factors.beta2),
                             narrow(1 - factors.beta2),         narrow(factors.step_size),
                             narrow(factors.second_correction), narrow(factors.epsilon),
                             narrow(factors.value_decay)};
  auto* x_data = value.mutable_data_ptr<Scalar>();
  const auto* g_data = gradient.const_data_ptr<Scalar>();
  auto* m_data = m.mutable_data_ptr<Scalar>();
  auto* v_data = v.mutable_data_ptr<Scalar>();
  constexpr int64_t kGrain = 1 << 15;
  at::parallel_for(0, value.numel(), kGrain, [&](int64_t begin, int64_t end) {
    Update(x_data + begin, g_data + begin, m_data + begin, v_data + begin, end - begin, f);
  });
}

}  // namespace

void AdamWUpdate(const at::Tensor& value, const at::Tensor& gradient, const at::Tensor& m,
                 const at::Tensor& v, const AdamWFactors& factors) {
  for (const at::Tensor& other : {gradient, m, v}) {
    TORCH_CHECK(other.numel() == value.numel() && other.scalar_type() == value.scalar_type() &&
                    other.is_contiguous() && value.is_contiguous(),
                "AdamWUpdate: arrays must be contiguous and agree in length and dtype, got ",
                value.numel(), " elements of ", value.scalar_type(), " and ", other.numel(), " of ",
                other.scalar_type());
  }
  if (value.scalar_type() == at::kDouble) {
    Run<double>(value, gradient, m, v, factors);
    return;
  }
  TORCH_CHECK(value.scalar_type() == at::kFloat, "AdamWUpdate: dtype ", value.scalar_type(),
              " is not one of float32, float64");
  Run<float>(value, gradient, m, v, factors);
}

}  // namespace hypermoe
