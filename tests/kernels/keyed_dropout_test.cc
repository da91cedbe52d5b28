#include "kernels/keyed_dropout.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/gradient_check.h"

namespace hypermoe {
namespace {

const RandomKey kKey = RandomKey{3, 0}.Derive("dropout");

TEST(KeyedDropoutTest, MaskFollowsTheGlobalRowNotTheLayout) {
  const at::Tensor x = at::ones({6, 10}, at::kDouble);
  const at::Tensor whole = KeyedDropout(x, 0.5, kKey, at::arange(6, at::kLong));
  const at::Tensor picked =
      KeyedDropout(at::ones({2, 10}, at::kDouble), 0.5, kKey, at::tensor({4, 1}, at::kLong));
  EXPECT_TRUE(picked[0].equal(whole[4]));
  EXPECT_TRUE(picked[1].equal(whole[1]));
  EXPECT_FALSE(whole[1].equal(whole[4]));
  // Several tensor rows may belong to one global row.
  const at::Tensor split =
      KeyedDropout(at::ones({4, 5}, at::kDouble), 0.5, kKey, at::tensor({4, 1}, at::kLong));
  EXPECT_TRUE(split.view({2, 10}).equal(picked));
}

TEST(KeyedDropoutTest, KeepsTheMeanAndScale) {
  constexpr int64_t kCount = 100000;
  const at::Tensor y =
      KeyedDropout(at::ones({1, kCount}, at::kDouble), 0.3, kKey, at::tensor({0}, at::kLong));
  const double kept = static_cast<double>(y.ne(0).sum().item<int64_t>()) / kCount;
  EXPECT_NEAR(kept, 0.7, 5 * std::sqrt(0.21 / kCount));
  EXPECT_DOUBLE_EQ(y.max().item<double>(), 1 / 0.7);
}

TEST(KeyedDropoutTest, GradientMatchesDifferences) {
  const at::Tensor x = at::arange(24, at::kDouble).view({3, 8}).set_requires_grad(true);
  EXPECT_TRUE(GradientsMatchDifferences(
      [](const std::vector<at::Tensor>& in) {
        return KeyedDropout(in[0], 0.4, kKey, at::tensor({5, 0, 9}, at::kLong));
      },
      {x}));
}

TEST(KeyedDropoutTest, NoRowsAndProbabilityZero) {
  const at::Tensor none = at::ones({0, 4}, at::kDouble);
  EXPECT_EQ(KeyedDropout(none, 0.5, kKey, at::arange(0, at::kLong)).numel(), 0);
  const at::Tensor x = at::ones({2, 4}, at::kDouble);
  EXPECT_TRUE(KeyedDropout(x, 0, kKey, at::arange(2, at::kLong)).is_same(x));
  EXPECT_THROW(KeyedDropout(x, 1.0, kKey, at::arange(2, at::kLong)), c10::Error);
}

}  // namespace
}  // namespace hypermoe
