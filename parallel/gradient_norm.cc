#include "parallel/gradient_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include "kernels/sum_of_squares.h"

namespace hypermoe {

at::Tensor OwnSumOfSquares(const std::vector<FlatBuffer>& buffers,
                           const std::vector<GradientBucket>& buckets, const Communicator& world) {
  std::vector<at::Tensor> parts;
  for (const GradientBucket& bucket : buckets) {
    const RowRange part = bucket.OwnPart();
    parts.push_back(buffers[bucket.buffer].gradients().narrow(0, part.begin, part.size()));
  }
  return SumOfSquares(parts, world.device());
}

at::Tensor GlobalGradientNorm(const std::vector<FlatBuffer>& buffers,
                              const std::vector<GradientBucket>& buckets, Communicator& world) {
  const at::Tensor sum = OwnSumOfSquares(buffers, buckets, world);
  world.AllReduceSum(sum);
  return sum.sqrt();
}

at::Tensor ClipScale(const at::Tensor& norm, double max_norm) {
  if (max_norm <= 0) return at::ones_like(norm);
  return at::where(norm > max_norm, max_norm / norm, 1.0);
}

}  // namespace hypermoe
