#include "parallel/gradient_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace hypermoe {
namespace {

template <typename Scalar>
double BlockSumOfSquares(const Scalar* x, int64_t count) {
  // Independent sums: one alone would wait for its own last addition each time.
  constexpr int kLanes = 8;
  std::array<double, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = x[i + lane];
      sums[lane] += value * value;
    }
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(x[i]) * x[i];
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

// The blocks do not depend on the number of threads, so neither do the bits of the sum.
template <typename Scalar>
double SumOfSquares(const Scalar* x, int64_t count) {
  constexpr int64_t kBlock = 1 << 15;
  const int64_t num_blocks = (count + kBlock - 1) / kBlock;
  std::vector<double> sums(num_blocks);
  at::parallel_for(0, num_blocks, /*grain_size=*/4, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      sums[block] = BlockSumOfSquares(x + first, std::min(kBlock, count - first));
    }
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

double SumOfSquares(const at::Tensor& flat) {
  if (!flat.is_cpu()) {
    // Summed in float64, over a copy in it.
    const auto norm = at::linalg_vector_norm(flat, 2, {}, false, at::kDouble).item<double>();
    return norm * norm;
  }
  if (flat.scalar_type() == at::kFloat) {
    return SumOfSquares(flat.const_data_ptr<float>(), flat.numel());
  }
  TORCH_CHECK(flat.scalar_type() == at::kDouble, "gradients of dtype ", flat.scalar_type(),
              " are not supported, expected float32 or float64");
  return SumOfSquares(flat.const_data_ptr<double>(), flat.numel());
}

}  // namespace

double GlobalGradientNorm(const std::vector<FlatBuffer>& buffers,
                          const std::vector<GradientBucket>& buckets, Communicator& world) {
  double own = 0;
  for (const GradientBucket& bucket : buckets) {
    const RowRange part = bucket.OwnPart();
    own += SumOfSquares(buffers[bucket.buffer].gradients().narrow(0, part.begin, part.size()));
  }
  const at::Tensor all = at::full({1}, own, at::kDouble);
  world.AllReduceSum(all);
  return std::sqrt(*all.const_data_ptr<double>());
}

double ClipScale(double norm, double max_norm) {
  return max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0;
}

}  // namespace hypermoe
