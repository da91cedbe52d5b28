// Compares autograd's gradients with central differences.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace hypermoe {

struct GradientCheckOptions {
  double step = 1e-5;
  // Of max |autograd - difference| / max(max |difference| of this input, 1e-3 * largest gradient of
  // all inputs).
  double tolerance = 1e-7;
};

namespace gradient_check_internal {

// sum(w * output) with fixed uneven weights, so that errors of opposite sign do not cancel.
inline at::Tensor WeightedSum(const at::Tensor& output) {
  const at::Tensor weights =
      at::linspace(0.3, 1.7, output.numel(), output.options()).mul(7.0).cos().add(1.5);
  return output.reshape({-1}).mul(weights).sum();
}

inline double LargestMagnitude(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0.0 : tensor.abs().max().item<double>();
}

}  // namespace gradient_check_internal

// Checks d(weighted sum of the output) / d(input) for every input that requires grad (float64); the
// others are passed on as they are. `function` must not change its inputs and must give the same
// output each time. It is called twice an element, so all ranks of a collective function would need
// equally many elements.
inline ::testing::AssertionResult GradientsMatchDifferences(
    const std::function<at::Tensor(std::vector<at::Tensor>)>& function,
    const std::vector<at::Tensor>& inputs, GradientCheckOptions options = {}) {
  using gradient_check_internal::LargestMagnitude;
  using gradient_check_internal::WeightedSum;

  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) {
    leaves.push_back(input.detach().clone().contiguous().set_requires_grad(input.requires_grad()));
  }
  const at::Tensor total = WeightedSum(function(leaves));
  if (!total.requires_grad())
    return ::testing::AssertionFailure() << "the output does not require grad";
  total.backward();

  std::vector<at::Tensor> differences(leaves.size());
  double largest = 0;
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!leaves[i].requires_grad()) continue;
    if (leaves[i].scalar_type() != at::kDouble) {
      return ::testing::AssertionFailure() << "input " << i << " is not float64";
    }
    differences[i] = at::zeros_like(leaves[i]);
    // Behind autograd's back, and with gradients on: without, the function might take another path
    // than the one checked.
    double* values = leaves[i].mutable_data_ptr<double>();
    double* difference = differences[i].mutable_data_ptr<double>();
    for (int64_t j = 0; j < leaves[i].numel(); ++j) {
      const double value = values[j];
      values[j] = value + options.step;
      const double above = WeightedSum(function(leaves)).item<double>();
      values[j] = value - options.step;
      const double below = WeightedSum(function(leaves)).item<double>();
      values[j] = value;
      difference[j] = (above - below) / (2 * options.step);
    }
    largest = std::max(largest, LargestMagnitude(differences[i]));
  }
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!leaves[i].requires_grad()) continue;
    const at::Tensor gradient =
        leaves[i].grad().defined() ? leaves[i].grad() : at::zeros_like(leaves[i]);
    const double scale = std::max(LargestMagnitude(differences[i]), 1e-3 * largest);
    const double error = LargestMagnitude(gradient - differences[i]);
    if (!(error <= options.tolerance * scale)) {
      return ::testing::AssertionFailure()
             << "input " << i << ": autograd and central differences differ by " << error
             << " where the gradient's scale is " << scale << ", allowed is " << options.tolerance
             << " of it";
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace hypermoe
