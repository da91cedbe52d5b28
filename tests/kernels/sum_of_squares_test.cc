#include "kernels/sum_of_squares.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/sum_of_squares_arguments.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

constexpr int64_t kTile = kSumOfSquaresTile;

class SumOfSquaresTest : public TestInPlace {
 protected:
  static std::vector<at::Tensor> Arrays(const std::vector<int64_t>& lengths) {
    std::vector<at::Tensor> arrays;
    for (const int64_t length : lengths) {
      arrays.push_back(GetParam().Put(Random({length}, std::to_string(arrays.size()))));
    }
    return arrays;
  }
  static double Sum(const std::vector<at::Tensor>& arrays) {
    const at::Tensor sum = SumOfSquares(arrays, GetParam().device);
    EXPECT_EQ(sum.scalar_type(), at::kDouble);
    EXPECT_EQ(sum.device().type(), GetParam().device);
    EXPECT_EQ(sum.numel(), 1);
    return sum.item<double>();
  }
  static double Expected(const std::vector<at::Tensor>& arrays) {
    long double sum = 0;
    for (const at::Tensor& array : arrays) {
      const at::Tensor values = array.to(at::kCPU, at::kDouble);
      for (int64_t i = 0; i < values.numel(); ++i) {
        const long double value = values.const_data_ptr<double>()[i];
        sum += value * value;
      }
    }
    return static_cast<double>(sum);
  }
};

// Around what a thread, a block and a tile take, empty arrays between others, and more arrays than
// a launch takes.
TEST_P(SumOfSquaresTest, IsTheSumInFloat64) {
  std::vector<int64_t> many;
  for (int64_t i = 0; i < 300; ++i) many.push_back(i % 5 == 4 ? 0 : 31 * i + 1);
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{1},
                                              {7},
                                              {8},
                                              {511, 0, 513},
                                              {kTile - 1, kTile, kTile + 1},
                                              {0, 5 * kTile + 3},
                                              many}) {
    const std::vector<at::Tensor> arrays = Arrays(lengths);
    const double expected = Expected(arrays);
    EXPECT_NEAR(Sum(arrays), expected, 1e-14 * expected) << lengths.size() << " arrays";
  }
}

TEST_P(SumOfSquaresTest, IsZeroWithoutElements) {
  EXPECT_EQ(Sum({}), 0);
  EXPECT_EQ(Sum(Arrays({0})), 0);
  EXPECT_EQ(Sum(Arrays({0, 0})), 0);
}

// float32 would overflow, or lose every small element.
TEST_P(SumOfSquaresTest, HasTheRangeOfFloat64) {
  const at::Tensor large = at::zeros({3}, GetParam().Options()).fill_(1e30);
  EXPECT_NEAR(Sum({large}), 3e60, 1e54);
  const at::Tensor small = at::zeros({1000}, GetParam().Options()).fill_(1e-3);
  small[0].fill_(1e3);
  EXPECT_NEAR(Sum({small}) - 1e6, 999e-6, 1e-7);
}

TEST_P(SumOfSquaresTest, HasTheSameBitsEveryTime) {
  const std::vector<at::Tensor> arrays = Arrays({3 * kTile + 7, 100, 9 * kTile});
  const double once = Sum(arrays);
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    EXPECT_EQ(Sum(arrays), once) << threads << " threads";
  }
}

// One element anywhere is enough.
TEST_P(SumOfSquaresTest, IsNotFiniteIfAnElementIsNot) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()}) {
    for (const int64_t index : {int64_t{0}, int64_t{1}, kTile - 1, kTile, 2 * kTile + 4}) {
      const std::vector<at::Tensor> arrays = Arrays({10, 2 * kTile + 5, 0});
      arrays[1][index].fill_(bad);
      const double sum = Sum(arrays);
      EXPECT_EQ(std::isnan(bad), std::isnan(sum)) << index;
      EXPECT_FALSE(std::isfinite(sum)) << bad << " at " << index;
    }
  }
}

TEST_P(SumOfSquaresTest, RefusesWhatDoesNotFit) {
  const at::Device device = GetParam().device;
  const at::Tensor array = Arrays({8})[0];
  const at::ScalarType other = GetParam().dtype == at::kFloat ? at::kDouble : at::kFloat;
  EXPECT_THROW(SumOfSquares({array, array.to(other)}, device), c10::Error);
  EXPECT_THROW(SumOfSquares({array.to(at::kBFloat16)}, device), c10::Error);
  EXPECT_THROW(SumOfSquares({array.slice(0, 0, 8, 2)}, device), c10::Error);
  if (device == at::kCUDA) {
    EXPECT_THROW(SumOfSquares({array.cpu()}, device), c10::Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Places, SumOfSquaresTest,
                         testing::Values(TestPlace{at::kCPU, at::kFloat},
                                         TestPlace{at::kCPU, at::kDouble},
                                         TestPlace{at::kCUDA, at::kFloat},
                                         TestPlace{at::kCUDA, at::kDouble}),
                         NameOfPlace);

}  // namespace
}  // namespace hypermoe
