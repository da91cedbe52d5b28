#include "runtime/keyed_permutation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace hypermoe {
namespace {

TEST(KeyedPermutationTest, IsABijectionForEverySize) {
  std::vector<uint64_t> sizes = {1009, 4096, 4097, 65536, 99991};
  for (uint64_t size = 1; size <= 130; ++size) sizes.push_back(size);
  for (const uint64_t size : sizes) {
    for (const uint64_t key : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
      const KeyedPermutation permutation(key, size);
      std::vector<bool> seen(size);
      for (uint64_t i = 0; i < size; ++i) {
        const uint64_t image = permutation(i);
        ASSERT_LT(image, size);
        ASSERT_FALSE(seen[image]) << size;
        seen[image] = true;
      }
    }
  }
}

TEST(KeyedPermutationTest, HugeSizesStayInside) {
  for (const uint64_t size : {uint64_t{1} << 63, ~uint64_t{0}, (uint64_t{1} << 32) + 1}) {
    const KeyedPermutation permutation(5, size);
    std::set<uint64_t> images;
    for (uint64_t i = 0; i < 100; ++i) images.insert(permutation(size - 1 - i));
    EXPECT_EQ(images.size(), 100u);
    EXPECT_LT(*images.rbegin(), size);
  }
}

TEST(KeyedPermutationTest, KeysGiveUnrelatedOrders) {
  constexpr uint64_t kSize = 1000;
  int same_place = 0, neighbours = 0;
  const KeyedPermutation a(1, kSize), b(2, kSize);
  for (uint64_t i = 0; i < kSize; ++i) same_place += a(i) == b(i);
  for (uint64_t i = 1; i < kSize; ++i) neighbours += a(i) == a(i - 1) + 1;
  EXPECT_LT(same_place, 10);  // one is expected by chance, for either
  EXPECT_LT(neighbours, 10);
}

// What a run computes depends on these; a change breaks the resuming of runs.
TEST(KeyedPermutationTest, ValuesNeverChange) {
  EXPECT_EQ(KeyedHash(0, 0), 0xA706DD2F4D197E6Fu);
  const KeyedPermutation permutation(42, 10);
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < 10; ++i) order.push_back(permutation(i));
  EXPECT_THAT(order, ::testing::ElementsAre(8, 2, 7, 4, 9, 1, 5, 3, 0, 6));
}

}  // namespace
}  // namespace hypermoe
