#include "kernels/keyed_random.h"

#include <ATen/core/PhiloxRNGEngine.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

const RandomKey kKey = RandomKey{7, 0}.Derive("test");

TEST(KeyedRandomTest, EveryPartOfAKeyMatters) {
  EXPECT_NE(UniformAt(kKey, 0), UniformAt(kKey, 1));
  EXPECT_NE(UniformAt(kKey, 0), UniformAt((RandomKey{8, 0}.Derive("test")), 0));
  EXPECT_NE(UniformAt(kKey, 0), UniformAt((RandomKey{7, 0}.Derive("tesu")), 0));
  EXPECT_NE(UniformAt(kKey.Derive(1).Derive(2), 0), UniformAt(kKey.Derive(2).Derive(1), 0));
}

class KeyedFillTest : public TestInPlace {
 protected:
  static at::Tensor Empty(at::IntArrayRef shape) { return at::empty(shape, GetParam().Options()); }
  static at::Tensor Ids(at::IntArrayRef ids) {
    return at::tensor(ids, at::kLong).to(GetParam().device);
  }
  // Of numbers whose logarithm and cosine may differ in their last bits, rounded to the dtype.
  static double Tolerance() {
    return GetParam().dtype == at::kDouble ? 1e-14 : GetParam().dtype == at::kFloat ? 1e-6 : 4e-3;
  }
};

// From LibTorch's engine, by itself.
TEST_P(KeyedFillTest, NumbersAreTheFormulaOfTheEnginesWords) {
  constexpr int64_t kCount = 1000, kBegin = (int64_t{1} << 40) - 3;
  const at::Tensor normal = Empty({kCount}), uniform = Empty({kCount});
  FillNormal(normal, kKey, 0.5, kBegin);
  FillUniform(uniform, kKey, -2, 3, kBegin);
  const at::Tensor expected_normal = at::empty({kCount}, at::kDouble),
                   expected_uniform = at::empty({kCount}, at::kDouble);
  for (int64_t i = 0; i < kCount; ++i) {
    at::philox_engine engine(kKey.seed, kKey.stream, static_cast<uint64_t>(kBegin + i));
    const auto draw = [&] {
      const uint64_t high = engine(), low = engine();
      return std::ldexp(static_cast<double>((high << 32 | low) >> 11), -53);
    };
    const double first = draw(), second = draw();
    expected_normal.mutable_data_ptr<double>()[i] =
        0.5 * std::sqrt(-2 * std::log(1 - first)) * std::cos(2 * std::numbers::pi * second);
    expected_uniform.mutable_data_ptr<double>()[i] = -2 + 5 * first;
  }
  EXPECT_LE(RelativeError(normal, expected_normal), Tolerance());
  // In every bit; to bfloat16 by way of float32.
  const at::ScalarType way = GetParam().dtype == at::kDouble ? at::kDouble : at::kFloat;
  EXPECT_TRUE(uniform.cpu().equal(expected_uniform.to(way).to(GetParam().dtype)));
}

TEST_P(KeyedFillTest, APartOfATensorHoldsTheSameNumbersAsTheWhole) {
  const at::Tensor whole = Empty({100});
  FillNormal(whole, kKey, 0.5);
  for (const int64_t begin : {0, 1, 37, 60}) {
    const at::Tensor part = Empty({40});
    FillNormal(part, kKey, 0.5, begin);
    EXPECT_TRUE(whole.narrow(0, begin, 40).equal(part));
    // An unaligned slice, and what is around it.
    const at::Tensor room = at::zeros({50}, GetParam().Options());
    FillNormal(room.narrow(0, 3, 40), kKey, 0.5, begin);
    EXPECT_TRUE(room.narrow(0, 3, 40).equal(part));
    EXPECT_EQ(room.narrow(0, 0, 3).ne(0).sum().item<int64_t>(), 0);
    EXPECT_EQ(room.narrow(0, 43, 7).ne(0).sum().item<int64_t>(), 0);
  }
}

TEST_P(KeyedFillTest, RowsHoldTheSequencesOfTheirKeys) {
  for (const int64_t width : {1, 3, 257, 5000}) {
    const at::Tensor normal = Empty({3, width}), uniform = Empty({3, width});
    FillNormalRows(normal, kKey, Ids({4, -1, 1000000007}), 2.0);
    FillUniformRows(uniform, kKey, Ids({4, -1, 1000000007}), -1, 1);
    int64_t row = 0;
    for (const uint64_t id : {uint64_t{4}, ~uint64_t{0}, uint64_t{1000000007}}) {
      const at::Tensor expected = Empty({width});
      FillNormal(expected, kKey.Derive(id), 2.0);
      EXPECT_TRUE(normal[row].equal(expected)) << id;
      FillUniform(expected, kKey.Derive(id), -1, 1);
      EXPECT_TRUE(uniform[row++].equal(expected)) << id;
    }
  }
}

TEST_P(KeyedFillTest, TakesNothingAndRefusesWhatDoesNotFit) {
  EXPECT_NO_THROW(FillNormal(Empty({0}), kKey, 1.0));
  EXPECT_NO_THROW(FillNormalRows(Empty({0, 4}), kKey, Ids({}), 1.0));
  EXPECT_NO_THROW(FillNormalRows(Empty({2, 0}), kKey, Ids({1, 2}), 1.0));
  EXPECT_THROW(FillNormal(Empty({4, 6}).transpose(0, 1), kKey, 1.0), c10::Error);
  EXPECT_THROW(FillNormal(Empty({4}).to(at::kLong), kKey, 1.0), c10::Error);
  EXPECT_THROW(FillUniformRows(Empty({2, 4}), kKey, Ids({1, 2, 3}), 0, 1), c10::Error);
  EXPECT_THROW(FillUniformRows(Empty({2, 4}), kKey, Ids({1, 2}).to(at::kInt), 0, 1), c10::Error);
  if (GetParam().device == at::kCUDA) {
    EXPECT_THROW(FillUniformRows(Empty({2, 4}), kKey, Ids({1, 2}).cpu(), 0, 1), c10::Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Places, KeyedFillTest, AllPlaces(), NameOfPlace);

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
