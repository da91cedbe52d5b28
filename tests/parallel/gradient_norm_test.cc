#include "parallel/gradient_norm.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

// One dense and one expert parameter, their gradients sin(0), sin(1), ...
std::vector<Parameter> Parameters(int64_t dense, int64_t expert, at::ScalarType dtype) {
  std::vector<Parameter> parameters(2);
  parameters[0].name = "dense";
  parameters[0].value = at::full({dense}, 1.0, dtype).set_requires_grad(true);
  parameters[1].name = "expert_{e}";
  parameters[1].group = ParameterGroup::kExpert;
  parameters[1].value = at::full({1, expert}, 1.0, dtype).set_requires_grad(true);
  return parameters;
}

void FillGradients(const std::vector<FlatBuffer>& buffers) {
  for (const FlatBuffer& buffer : buffers) {
    buffer.gradients().copy_(at::arange(buffer.gradients().numel(), at::kDouble).sin());
  }
}

double ReferenceNorm(const std::vector<FlatBuffer>& buffers) {
  long double sum = 0;
  for (const FlatBuffer& buffer : buffers) {
    const at::Tensor values = buffer.gradients().to(at::kDouble);
    for (int64_t i = 0; i < values.numel(); ++i) {
      const long double value = values.const_data_ptr<double>()[i];
      sum += value * value;
    }
  }
  return static_cast<double>(std::sqrt(sum));
}

double Norm(const std::vector<FlatBuffer>& buffers, int64_t bucket_bytes = 1 << 20) {
  const ProcessMesh mesh = ProcessMesh::Create(NewSelfCommunicator("world"), 1);
  return GlobalGradientNorm(buffers, MakeGradientBuckets(buffers, mesh, bucket_bytes), *mesh.world)
      .item<double>();
}

TEST(GlobalGradientNormTest, AccumulatesInFloat64) {
  for (at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    std::vector<Parameter> parameters = Parameters(200001, 35003, dtype);
    const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
    FillGradients(buffers);
    const double expected = ReferenceNorm(buffers);
    EXPECT_NEAR(Norm(buffers), expected, 1e-13 * expected);
    EXPECT_NEAR(Norm(buffers, /*bucket_bytes=*/1000), expected, 1e-13 * expected);
  }
}

TEST(GlobalGradientNormTest, HasTheSameBitsForEveryNumberOfThreads) {
  std::vector<Parameter> parameters = Parameters(500001, 1, at::kFloat);
  const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  FillGradients(buffers);
  const auto with_threads = [&](int threads) {
    const ThreadsScope scope(threads);
    return Norm(buffers);
  };
  EXPECT_EQ(with_threads(1), with_threads(3));
}

TEST(ClipScaleTest, ScalesToTheLargestNormOnlyWhenAboveIt) {
  const auto scale = [](double norm, double max_norm) {
    return ClipScale(at::full({1}, norm, at::kDouble), max_norm).item<double>();
  };
  EXPECT_EQ(scale(2.0, 2.0), 1.0);
  EXPECT_EQ(scale(2.0, 4.0), 1.0);
  EXPECT_EQ(scale(2.0, 0.0), 1.0);  // 0 is off
  EXPECT_EQ(scale(std::numeric_limits<double>::quiet_NaN(), 1.0), 1.0);
  EXPECT_EQ(scale(2.0, 0.5), 0.25);
}

}  // namespace
}  // namespace hypermoe
