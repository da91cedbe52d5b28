#include "parallel/gradient_reducer.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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

TEST(GlobalGradientNormTest, AccumulatesInFloat64) {
  const auto self = NewSelfCommunicator("expert");
  for (at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    std::vector<Parameter> parameters = Parameters(200001, 35003, dtype);
    const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
    FillGradients(buffers);
    const double expected = ReferenceNorm(buffers);
    EXPECT_NEAR(GlobalGradientNorm(buffers, *self), expected, 1e-13 * expected);
  }
}

TEST(GlobalGradientNormTest, HasTheSameBitsForEveryNumberOfThreads) {
  const auto self = NewSelfCommunicator("expert");
  std::vector<Parameter> parameters = Parameters(500001, 1, at::kFloat);
  const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  FillGradients(buffers);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double one = GlobalGradientNorm(buffers, *self);
  at::set_num_threads(3);
  const double three = GlobalGradientNorm(buffers, *self);
  at::set_num_threads(threads);
  EXPECT_EQ(one, three);
}

TEST(ClipGradientsTest, ScalesToTheLargestNormOnlyWhenAboveIt) {
  const auto self = NewSelfCommunicator("expert");
  std::vector<Parameter> parameters = Parameters(1000, 77, at::kDouble);
  const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  FillGradients(buffers);
  const at::Tensor before = buffers[0].gradients().clone();
  const double norm = GlobalGradientNorm(buffers, *self);

  ClipGradients(buffers, norm, norm);
  ClipGradients(buffers, norm, 2 * norm);
  ClipGradients(buffers, norm, 0);  // 0 is off
  ClipGradients(buffers, std::numeric_limits<double>::quiet_NaN(), 1);
  EXPECT_TRUE(at::equal(buffers[0].gradients(), before));

  ClipGradients(buffers, norm, 0.5);
  EXPECT_NEAR(GlobalGradientNorm(buffers, *self), 0.5, 1e-13);
  EXPECT_TRUE(at::equal(buffers[0].gradients(), before * (0.5 / norm)));
}

}  // namespace
}  // namespace hypermoe
