#include "kernels/accumulate.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"

namespace hypermoe {
namespace {

// Of several threads' parts, with a rest.
TEST(AccumulateTest, GivesTheBitsOfAddition) {
  for (const at::ScalarType wide : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const at::ScalarType narrow : {wide, at::kBFloat16}) {
      for (const bool transposed : {false, true}) {
        const at::Tensor before = Random({301, 257}, "sum", wide);
        at::Tensor addend = Random({301, 257}, "addend", narrow);
        if (transposed) addend = addend.t().contiguous().t();
        const at::Tensor sum = before.clone();
        Accumulate(sum, addend);
        EXPECT_TRUE(sum.equal(before.add(addend))) << wide << " and " << narrow;
      }
    }
  }
}

TEST(AccumulateTest, TakesAPartOfALargerSum) {
  const at::Tensor sums = Random({3, 5, 7}, "sums", at::kFloat), before = sums.clone();
  const at::Tensor addend = Random({5, 7}, "addend", at::kBFloat16);
  Accumulate(sums.select(0, 1), addend);
  EXPECT_TRUE(sums[1].equal(before[1].add(addend)));
  EXPECT_TRUE(sums[0].equal(before[0]));
  EXPECT_TRUE(sums[2].equal(before[2]));
  Accumulate(sums.select(2, 3), addend.select(1, 0).expand({3, 5}));
  EXPECT_TRUE(sums.select(2, 3)[0].equal(before.select(2, 3)[0].add(addend.select(1, 0))));
  EXPECT_THROW(Accumulate(sums, addend), c10::Error);
}

}  // namespace
}  // namespace hypermoe
