#include "kernels/keyed_noise.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

const RandomKey kKey = RandomKey{3, 0}.Derive("jitter");

class KeyedNoiseTest : public TestInPlace {
 protected:
  static at::Tensor Ones(at::IntArrayRef shape) { return at::ones(shape, GetParam().Options()); }
  static at::Tensor Ids(at::IntArrayRef ids) {
    return at::tensor(ids, at::kLong).to(GetParam().device);
  }
};

TEST_P(KeyedNoiseTest, FollowsTheGlobalRowNotTheLayout) {
  const auto jitter = [](const at::Tensor& x, const at::Tensor& ids) {
    return KeyedJitter(x, 0.1, kKey, ids);
  };
  const auto normal = [](const at::Tensor& x, const at::Tensor& ids) {
    return KeyedNormalLike(x, kKey, ids);
  };
  const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)> kinds[] = {jitter, normal};
  for (const auto& noise : kinds) {
    const at::Tensor whole = noise(Ones({6, 10}), Ids({0, 1, 2, 3, 4, 5}));
    const at::Tensor picked = noise(Ones({4, 5}), Ids({4, 1}));
    EXPECT_TRUE(picked.view({2, 10})[0].equal(whole[4]));
    EXPECT_TRUE(picked.view({2, 10})[1].equal(whole[1]));
    EXPECT_FALSE(whole[1].equal(whole[4]));
    EXPECT_EQ(whole.options().dtype(), GetParam().Options().dtype());
  }
}

// Uniform numbers are multiplied in the place's dtype: in every bit as on the CPU.
TEST_P(KeyedNoiseTest, IsThatOfTheCpu) {
  const at::Tensor x = Random({6, 70}, "x", GetParam().dtype), on_device = GetParam().Put(x);
  const at::Tensor ids = at::tensor({5, 0, 9}, at::kLong);
  EXPECT_TRUE(KeyedJitter(on_device, 0.3, kKey, ids.to(GetParam().device))
                  .cpu()
                  .equal(KeyedJitter(x, 0.3, kKey, ids)));
  EXPECT_LE(RelativeError(KeyedNormalLike(on_device, kKey, ids.to(GetParam().device)),
                          KeyedNormalLike(x, kKey, ids)),
            GetParam().dtype == at::kBFloat16 ? 1e-2 : 1e-6);
}

TEST_P(KeyedNoiseTest, NoneAndNoRows) {
  const at::Tensor x = Ones({2, 4});
  EXPECT_TRUE(KeyedJitter(x, 0, kKey, Ids({0, 1})).is_same(x));
  EXPECT_EQ(KeyedJitter(Ones({0, 4}), 0.5, kKey, Ids({})).numel(), 0);
  EXPECT_EQ(KeyedNormalLike(Ones({0, 4}), kKey, Ids({})).numel(), 0);
  EXPECT_THROW(KeyedJitter(x, 1.0, kKey, Ids({0, 1})), c10::Error);
  EXPECT_THROW(KeyedNormalLike(x, kKey, Ids({0, 1, 2})), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(Places, KeyedNoiseTest, AllPlaces(), NameOfPlace);

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

}  // namespace
}  // namespace hypermoe
