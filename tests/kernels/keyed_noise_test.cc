#include "kernels/keyed_noise.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/gradient_check.h"

namespace hypermoe {
namespace {

const RandomKey kKey = RandomKey{3, 0}.Derive("jitter");

TEST(KeyedJitterTest, FollowsTheGlobalRowNotTheLayout) {
  const at::Tensor whole =
      KeyedJitter(at::ones({6, 10}, at::kDouble), 0.1, kKey, at::arange(6, at::kLong));
  const at::Tensor picked =
      KeyedJitter(at::ones({4, 5}, at::kDouble), 0.1, kKey, at::tensor({4, 1}, at::kLong));
  EXPECT_TRUE(picked.view({2, 10})[0].equal(whole[4]));
  EXPECT_TRUE(picked.view({2, 10})[1].equal(whole[1]));
}

TEST(KeyedJitterTest, StaysWithinTheAmplitudeAroundOne) {
  constexpr int64_t kCount = 100000;
  const at::Tensor y =
      KeyedJitter(at::ones({1, kCount}, at::kDouble), 0.1, kKey, at::tensor({0}, at::kLong));
  EXPECT_GE(y.min().item<double>(), 0.9);
  EXPECT_LE(y.max().item<double>(), 1.1);
  EXPECT_NEAR(y.mean().item<double>(), 1.0, 5 * 0.1 / std::sqrt(3.0 * kCount));
}

TEST(KeyedJitterTest, GradientMatchesDifferences) {
  const at::Tensor x = at::arange(24, at::kDouble).view({3, 8}).set_requires_grad(true);
  EXPECT_TRUE(GradientsMatchDifferences(
      [](const std::vector<at::Tensor>& in) {
        return KeyedJitter(in[0], 0.3, kKey, at::tensor({5, 0, 9}, at::kLong));
      },
      {x}));
}

TEST(KeyedJitterTest, NoneAndNoRows) {
  const at::Tensor x = at::ones({2, 4}, at::kDouble);
  EXPECT_TRUE(KeyedJitter(x, 0, kKey, at::arange(2, at::kLong)).is_same(x));
  EXPECT_EQ(KeyedJitter(at::ones({0, 4}), 0.5, kKey, at::arange(0, at::kLong)).numel(), 0);
  EXPECT_THROW(KeyedJitter(x, 1.0, kKey, at::arange(2, at::kLong)), c10::Error);
}

}  // namespace
}  // namespace hypermoe
