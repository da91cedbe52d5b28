#include "kernels/array_digests.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <vector>

#include "kernels/array_digests_arguments.h"
#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"
#include "tests/support/threads_scope.h"

namespace hypermoe {
namespace {

constexpr int64_t kTile = 1 << 14;  // that of a GPU

class ArrayDigestsTest : public TestInPlace {
 protected:
  static at::Tensor Array(int64_t length, const std::string& name = "array") {
    return GetParam().Put(Random({length}, name));
  }
  static std::vector<int64_t> Digests(const std::vector<at::Tensor>& arrays) {
    const at::Tensor digests = ArrayDigests(arrays, GetParam().device);
    EXPECT_EQ(digests.device().type(), GetParam().device);
    EXPECT_EQ(digests.numel(), static_cast<int64_t>(arrays.size()));
    const at::Tensor host = digests.cpu();
    const int64_t* data = host.const_data_ptr<int64_t>();
    return {data, data + host.numel()};
  }
  static int64_t Digest(const at::Tensor& array) { return Digests({array})[0]; }
  // The lowest bit of the mantissa of one element, so that -0 and NaN have one too.
  static void FlipBit(const at::Tensor& array, int64_t index) {
    const at::ScalarType bits = GetParam().dtype == at::kDouble ? at::kLong : at::kInt;
    array.view(bits).narrow(0, index, 1).bitwise_xor_(1);
  }
};

// Also what makes the digests of all devices the same.
TEST_P(ArrayDigestsTest, IsTheSumOfItsTerms) {
  std::vector<at::Tensor> arrays;
  std::vector<int64_t> expected;
  for (const int64_t length : {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{255}, int64_t{257},
                               int64_t{0}, kTile - 1, kTile, kTile + 1, 3 * kTile + 77}) {
    arrays.push_back(Array(length));
    const bool wide = GetParam().dtype == at::kDouble;
    const at::Tensor bits = arrays.back().cpu().view(wide ? at::kLong : at::kInt).to(at::kLong);
    uint64_t sum = 0;
    for (int64_t i = 0; i < length; ++i) {
      const auto word = static_cast<uint64_t>(bits.const_data_ptr<int64_t>()[i]);
      sum += DigestTerm(static_cast<uint64_t>(i), wide ? word : word & 0xffffffffU);
    }
    expected.push_back(static_cast<int64_t>(sum));
  }
  EXPECT_EQ(Digests(arrays), expected);
  EXPECT_TRUE(Digests({}).empty());
}

TEST_P(ArrayDigestsTest, EveryBitAndEveryPlaceMatters) {
  const at::Tensor array = Array(kTile + 3);
  array[0].fill_(-0.0);
  array[1].fill_(std::numeric_limits<double>::quiet_NaN());
  std::set<int64_t> seen = {Digest(array)};
  for (const int64_t index : {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{300}, kTile, kTile + 2}) {
    FlipBit(array, index);
    EXPECT_TRUE(seen.insert(Digest(array)).second) << "flipped at " << index;
    FlipBit(array, index);
  }
  array[0].fill_(0.0);
  EXPECT_TRUE(seen.insert(Digest(array)).second) << "-0 and 0";
  array.copy_(array.flip({0}));
  EXPECT_TRUE(seen.insert(Digest(array)).second) << "another order";
  EXPECT_TRUE(seen.insert(Digest(array.narrow(0, 0, kTile))).second) << "a part";
}

// More than a launch takes, of many lengths.
TEST_P(ArrayDigestsTest, OfManyArraysIsThatOfEach) {
  std::vector<at::Tensor> arrays;
  for (int64_t i = 0; i < 300; ++i) {
    arrays.push_back(Array(i % 7 == 3 ? 0 : 97 * i + 1, std::to_string(i)));
  }
  const std::vector<int64_t> digests = Digests(arrays);
  for (size_t i = 0; i < arrays.size(); ++i) EXPECT_EQ(Digest(arrays[i]), digests[i]) << i;
}

TEST_P(ArrayDigestsTest, IsTheSameForAnyNumberOfThreads) {
  const at::Tensor array = Array(10 * kTile + 1);
  const int64_t once = Digest(array);
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    EXPECT_EQ(Digest(array), once) << threads;
  }
}

TEST_P(ArrayDigestsTest, RefusesWhatDoesNotFit) {
  const at::Device device = GetParam().device;
  const at::Tensor array = Array(8);
  const at::ScalarType other = GetParam().dtype == at::kFloat ? at::kDouble : at::kFloat;
  EXPECT_THROW(ArrayDigests({array, array.to(other)}, device), c10::Error);
  EXPECT_THROW(ArrayDigests({array.to(at::kBFloat16)}, device), c10::Error);
  EXPECT_THROW(ArrayDigests({array.slice(0, 0, 8, 2)}, device), c10::Error);
  if (device == at::kCUDA) {
    EXPECT_THROW(ArrayDigests({array.cpu()}, device), c10::Error);
  }
}

INSTANTIATE_TEST_SUITE_P(Places, ArrayDigestsTest,
                         testing::Values(TestPlace{at::kCPU, at::kFloat},
                                         TestPlace{at::kCPU, at::kDouble},
                                         TestPlace{at::kCUDA, at::kFloat},
                                         TestPlace{at::kCUDA, at::kDouble}),
                         NameOfPlace);

}  // namespace
}  // namespace hypermoe
