#include "parallel/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

namespace hypermoe {
namespace {

// The formula at the top of parallel/adamw.h, one element at a time.
struct ReferenceElement {
  double value, first = 0, second = 0;
  void Step(double gradient, double learning_rate, double decay, int64_t t,
            const AdamWOptions& options) {
    value *= 1 - learning_rate * decay;
    first = options.beta1 * first + (1 - options.beta1) * gradient;
    second = options.beta2 * second + (1 - options.beta2) * gradient * gradient;
    const double corrected = second / (1 - std::pow(options.beta2, t));
    value -= learning_rate / (1 - std::pow(options.beta1, t)) * first /
             (std::sqrt(corrected) + options.epsilon);
  }
};

// A decayed and an undecayed parameter, of lengths that leave a tail behind every vector width.
std::vector<Parameter> TwoParameters(at::ScalarType dtype) {
  std::vector<Parameter> parameters(2);
  for (int i = 0; i < 2; ++i) {
    parameters[i].name = i == 0 ? "bias" : "weight";
    parameters[i].weight_decay = i == 1;
    parameters[i].value =
        at::arange(37 + 64 * i, at::kDouble).sin().to(dtype).set_requires_grad(true);
  }
  return parameters;
}

double GradientAt(int64_t step, int64_t element) {
  return std::cos(0.7 * static_cast<double>(element) + static_cast<double>(step)) *
         std::pow(10.0, static_cast<double>(element % 7) - 3);
}

void FillGradients(const FlatBuffer& buffer, int64_t step) {
  at::Tensor gradients = at::empty({buffer.gradients().numel()}, at::kDouble);
  for (int64_t i = 0; i < gradients.numel(); ++i) {
    gradients.mutable_data_ptr<double>()[i] = GradientAt(step, i);
  }
  buffer.gradients().copy_(gradients);
}

// Largest |value - reference| after a few steps, relative to max(1, |reference|).
double ErrorAfterSteps(at::ScalarType dtype, const AdamWOptions& options) {
  std::vector<Parameter> parameters = TwoParameters(dtype);
  const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
  const FlatBuffer& buffer = buffers[0];
  AdamW optimizer(buffers, options);
  std::vector<ReferenceElement> reference;
  const at::Tensor start = buffer.values().to(at::kDouble);
  for (int64_t i = 0; i < start.numel(); ++i) {
    reference.push_back({start.const_data_ptr<double>()[i]});
  }
  for (int64_t step = 1; step <= 6; ++step) {
    const double learning_rate = 1e-2 / static_cast<double>(step);
    FillGradients(buffer, step);
    optimizer.Step(learning_rate);
    for (int64_t i = 0; i < start.numel(); ++i) {
      const double decay = i < buffer.decayed_elements() ? options.weight_decay : 0;
      reference[i].Step(GradientAt(step, i), learning_rate, decay, step, options);
    }
  }
  EXPECT_EQ(optimizer.steps(), 6);
  double error = 0;
  const at::Tensor values = buffer.values().to(at::kDouble);
  const at::Tensor first = optimizer.first_moments(0).to(at::kDouble);
  const at::Tensor second = optimizer.second_moments(0).to(at::kDouble);
  const auto compare = [&error](double got, double want) {
    error = std::max(error, std::abs(got - want) / std::max(1.0, std::abs(want)));
  };
  for (int64_t i = 0; i < values.numel(); ++i) {
    compare(values.const_data_ptr<double>()[i], reference[i].value);
    compare(first.const_data_ptr<double>()[i], reference[i].first);
    compare(second.const_data_ptr<double>()[i], reference[i].second);
  }
  return error;
}

TEST(AdamWTest, FollowsTheFormulaInFloat64) {
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {}), 1e-12);
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {0.8, 0.999, 1e-6, 0.0}), 1e-12);
  EXPECT_LE(ErrorAfterSteps(at::kDouble, {0.0, 0.0, 1e-3, 1.5}), 1e-12);
}

TEST(AdamWTest, FollowsTheFormulaInFloat32) { EXPECT_LE(ErrorAfterSteps(at::kFloat, {}), 2e-6); }

TEST(AdamWTest, RestoredStateGoesOnBitForBit) {
  const auto run = [](int64_t stop_and_restore_after) {
    std::vector<Parameter> parameters = TwoParameters(at::kFloat);
    const std::vector<FlatBuffer> buffers = MakeFlatBuffers(parameters);
    auto optimizer = std::make_unique<AdamW>(buffers, AdamWOptions{});
    for (int64_t step = 1; step <= 5; ++step) {
      FillGradients(buffers[0], step);
      optimizer->Step(1e-2);
      if (step == stop_and_restore_after) {
        auto restored = std::make_unique<AdamW>(buffers, AdamWOptions{});
        restored->first_moments(0).copy_(optimizer->first_moments(0));
        restored->second_moments(0).copy_(optimizer->second_moments(0));
        restored->set_steps(optimizer->steps());
        optimizer = std::move(restored);
      }
    }
    return buffers[0].values().clone();
  };
  EXPECT_TRUE(at::equal(run(/*stop_and_restore_after=*/0), run(3)));
}

}  // namespace
}  // namespace hypermoe
