#include "kernels/expert_order.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/random_tensor.h"
#include "tests/support/test_devices.h"

namespace hypermoe {
namespace {

using ::testing::HasSubstr;

enum class Ids { kRandom, kSorted, kFalling, kOneExpert };

struct Case {
  int64_t choices, experts;
  Ids ids = Ids::kRandom;
};

at::Tensor Make(const Case& c) {
  if (c.ids == Ids::kOneExpert) return at::full({c.choices}, c.experts - 1, at::kLong);
  const at::Tensor ids =
      (Random({c.choices}, "ids") * 1e6).floor().to(at::kLong).remainder(c.experts);
  return c.ids == Ids::kRandom ? ids : std::get<0>(ids.sort(0, c.ids == Ids::kFalling));
}

class ExpertOrderTest : public testing::TestWithParam<Case> {};

TEST_P(ExpertOrderTest, IsAStableSortWithItsInverseAndCounts) {
  const Case& c = GetParam();
  const at::Tensor ids = Make(c);
  const auto [sorted, order] = at::sort(ids, /*stable=*/true, 0, /*descending=*/false);
  const int64_t descents =
      c.choices < 2
          ? 0
          : ids.slice(0, 0, c.choices - 1).gt(ids.slice(0, 1, c.choices)).sum().item<int64_t>();
  for (const at::Device device : DevicesHere()) {
    const ExpertOrder result = OrderByExpert(ids.to(device), c.experts);
    EXPECT_EQ(result.order_C.device().type(), device.type());
    ASSERT_EQ(result.counts.sizes(), at::IntArrayRef({c.experts + 2}));
    const at::Tensor counts = result.counts.cpu();
    EXPECT_TRUE(result.order_C.cpu().equal(order)) << device;
    EXPECT_TRUE(
        result.inverse_C.cpu().index_select(0, order).equal(at::arange(c.choices, at::kLong)))
        << device;
    EXPECT_TRUE(counts.slice(0, 0, c.experts).equal(at::bincount(ids, {}, c.experts))) << device;
    EXPECT_EQ(counts[c.experts].item<int64_t>(), 0);
    EXPECT_EQ(counts[c.experts + 1].item<int64_t>(), descents) << device;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ExpertOrderTest,
                         testing::Values(Case{0, 3}, Case{1, 1}, Case{31, 8}, Case{33, 2},
                                         Case{2047, 5}, Case{2048, 64}, Case{2049, 100},
                                         Case{10000, 7}, Case{50001, 1024}, Case{9999, 4097},
                                         Case{600001, 33}, Case{5000, 16, Ids::kOneExpert},
                                         Case{5000, 1}, Case{5000, 16, Ids::kSorted},
                                         Case{5000, 300, Ids::kFalling}));

TEST(ExpertOrderChecksTest, ReadsStridedIds) {
  const at::Tensor ids = at::tensor({2L, 9L, 0L, 9L, 2L, 9L}).view({3, 2}).select(1, 0);
  EXPECT_TRUE(OrderByExpert(ids, 3).order_C.equal(at::tensor({1L, 0L, 2L})));
}

TEST(ExpertOrderChecksTest, IdsOutsideTheRange) {
  const at::Tensor ids = at::tensor({0L, 3L, 1L, -1L, 0L});
  for (const at::Device device : DevicesHere()) {
    if (device.is_cpu()) {
      try {
        OrderByExpert(ids, 3);
        ADD_FAILURE();
      } catch (const c10::Error& error) {
        EXPECT_THAT(error.what_without_backtrace(),
                    HasSubstr("expert id 3 of token 1 is outside [0, 3)"));
      }
    } else {
      const ExpertOrder result = OrderByExpert(ids.to(device), 3);
      EXPECT_TRUE(result.order_C.cpu().equal(at::tensor({0L, 4L, 2L, 1L, 3L})));
      EXPECT_TRUE(result.counts.cpu().equal(at::tensor({2L, 1L, 0L, 2L, 2L})));
    }
  }
}

TEST(ExpertOrderChecksTest, RefusesWhatDoesNotFit) {
  EXPECT_THROW(OrderByExpert(at::arange(2, at::kInt), 2), c10::Error);
  EXPECT_THROW(OrderByExpert(at::arange(2, at::kLong).view({1, 2}), 2), c10::Error);
  EXPECT_THROW(OrderByExpert(at::arange(2, at::kLong), 0), c10::Error);
  EXPECT_THROW(OrderByExpert(at::arange(2, at::kLong), 4098), c10::Error);
}

}  // namespace
}  // namespace hypermoe
