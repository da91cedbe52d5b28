#include "kernels/keyed_random.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>

namespace hypermoe {
namespace {

const RandomKey kKey = RandomKey{7, 0}.Derive("test");

TEST(KeyedRandomTest, EveryPartOfAKeyMatters) {
  EXPECT_NE(UniformAt(kKey, 0), UniformAt(kKey, 1));
  EXPECT_NE(UniformAt(kKey, 0), UniformAt((RandomKey{8, 0}.Derive("test")), 0));
  EXPECT_NE(UniformAt(kKey, 0), UniformAt((RandomKey{7, 0}.Derive("tesu")), 0));
  EXPECT_NE(UniformAt(kKey.Derive(1).Derive(2), 0), UniformAt(kKey.Derive(2).Derive(1), 0));
}

TEST(KeyedRandomTest, APartOfATensorHoldsTheSameNumbersAsTheWhole) {
  at::Tensor whole = at::empty({100}, at::kDouble), part = at::empty({40}, at::kDouble);
  FillNormal(whole, kKey, 0.5);
  FillNormal(part, kKey, 0.5, 60);
  EXPECT_TRUE(whole.narrow(0, 60, 40).equal(part));
}

TEST(KeyedRandomTest, Float32IsFloat64Rounded) {
  at::Tensor wide = at::empty({1000}, at::kDouble), narrow = at::empty({1000}, at::kFloat);
  FillUniform(wide, kKey, -2, 3);
  FillUniform(narrow, kKey, -2, 3);
  EXPECT_TRUE(wide.to(at::kFloat).equal(narrow));
}

TEST(KeyedRandomTest, MomentsAreThoseOfTheDistribution) {
  constexpr int64_t kCount = 200000;
  at::Tensor x = at::empty({kCount}, at::kDouble);
  // Bounds are about five standard errors wide.
  FillNormal(x, kKey, 2.0);
  EXPECT_NEAR(x.mean().item<double>(), 0, 5 * 2.0 / std::sqrt(kCount));
  EXPECT_NEAR(x.std().item<double>(), 2.0, 5 * 2.0 / std::sqrt(2.0 * kCount));
  EXPECT_NEAR(x.div(2).pow(4).mean().item<double>(), 3.0, 5 * std::sqrt(96.0 / kCount));
  FillUniform(x, kKey, -1, 1);
  EXPECT_NEAR(x.mean().item<double>(), 0, 5 / std::sqrt(3.0 * kCount));
  EXPECT_GE(x.min().item<double>(), -1);
  EXPECT_LT(x.max().item<double>(), 1);
}

}  // namespace
}  // namespace hypermoe
