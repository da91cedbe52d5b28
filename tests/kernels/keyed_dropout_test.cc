#include "kernels/keyed_dropout.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/PhiloxRNGEngine.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/gradient_check.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

const RandomKey kKey = RandomKey{3, 0}.Derive("dropout");

class KeyedDropoutPlacesTest : public TestInPlace {
 protected:
  static at::Tensor Ones(at::IntArrayRef shape) { return at::ones(shape, GetParam().Options()); }
  static at::Tensor Ids(at::IntArrayRef ids) {
    return at::tensor(ids, at::kLong).to(GetParam().device);
  }
};

TEST_P(KeyedDropoutPlacesTest, MaskFollowsTheGlobalRowNotTheLayout) {
  const at::Tensor whole = KeyedDropout(Ones({6, 10}), 0.5, kKey, Ids({0, 1, 2, 3, 4, 5}));
  const at::Tensor picked = KeyedDropout(Ones({2, 10}), 0.5, kKey, Ids({4, 1}));
  EXPECT_TRUE(picked[0].equal(whole[4]));
  EXPECT_TRUE(picked[1].equal(whole[1]));
  EXPECT_FALSE(whole[1].equal(whole[4]));
  // Several tensor rows may belong to one global row.
  const at::Tensor split = KeyedDropout(Ones({4, 5}), 0.5, kKey, Ids({4, 1}));
  EXPECT_TRUE(split.view({2, 10}).equal(picked));
}

// Consecutive words of LibTorch's engine, 24 bits of each; widths around what a thread takes.
TEST_P(KeyedDropoutPlacesTest, MaskIsThatOfTheEnginesWordsInEveryBit) {
  constexpr double kProbability = 0.3;
  for (const int64_t width : {1, 2, 3, 4, 5, 8, 1023, 1024, 4097}) {
    const at::Tensor expected = at::empty({3, width}, at::kBool);
    int64_t row = 0;
    for (const uint64_t id : {uint64_t{4}, ~uint64_t{0}, uint64_t{1} << 40}) {
      const RandomKey key = kKey.Derive(id);
      at::philox_engine engine(key.seed, key.stream, 0);
      for (int64_t j = 0; j < width; ++j) {
        const double uniform = (engine() >> 8) / 16777216.0;
        expected.mutable_data_ptr<bool>()[row * width + j] = uniform >= kProbability;
      }
      ++row;
    }
    const at::Tensor x = Ones({3, width}).set_requires_grad(true);
    const at::Tensor y = KeyedDropout(x, kProbability, kKey, Ids({4, -1, int64_t{1} << 40}));
    EXPECT_TRUE(y.detach().ne(0).cpu().equal(expected)) << width;
    y.sum().backward();
    EXPECT_TRUE(x.grad().equal(y.detach())) << width;
  }
}

TEST_P(KeyedDropoutPlacesTest, NoRowsAndProbabilityZero) {
  EXPECT_EQ(KeyedDropout(Ones({0, 4}), 0.5, kKey, Ids({})).numel(), 0);
  EXPECT_EQ(KeyedDropout(Ones({2, 0}), 0.5, kKey, Ids({0, 1})).numel(), 0);
  const at::Tensor x = Ones({2, 4});
  EXPECT_TRUE(KeyedDropout(x, 0, kKey, Ids({0, 1})).is_same(x));
  EXPECT_THROW(KeyedDropout(x, 1.0, kKey, Ids({0, 1})), c10::Error);
  EXPECT_THROW(KeyedDropout(x, 0.5, kKey, Ids({0, 1, 2})), c10::Error);
  EXPECT_THROW(KeyedDropout(x, 0.5, kKey, Ids({0, 1}).to(at::kInt)), c10::Error);
  if (GetParam().device == at::kCUDA) {
    EXPECT_THROW(KeyedDropout(x, 0.5, kKey, Ids({0, 1}).cpu()), c10::Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Places, KeyedDropoutPlacesTest, AllPlaces(), NameOfPlace);

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

}  // namespace
}  // namespace hypermoe
