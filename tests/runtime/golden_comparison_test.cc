// The rule by which a golden entry counts as met.
#include "runtime/golden_comparison.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace hypermoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

at::Tensor Doubles(std::vector<double> values) { return at::tensor(values, at::kDouble); }
at::Tensor Integers(std::vector<int64_t> values) { return at::tensor(values, at::kLong); }

TEST(CompareEntryTest, ToleranceIsOfTheLargestExpectedNumber) {
  // The scale is 4: at a tolerance of 1/8, 1/2 is the most.
  const at::Tensor expected = Doubles({-4, 0, 1});
  EXPECT_TRUE(CompareEntry("x", Doubles({-4, 0.5, 1}), expected, 0.125).ok);
  EXPECT_TRUE(CompareEntry("x", Doubles({-4.5, 0, 1}), expected, 0.125).ok);
  const EntryDifference beyond = CompareEntry("x", Doubles({-4, 0.5001, 1}), expected, 0.125);
  EXPECT_FALSE(beyond.ok);
  EXPECT_NEAR(beyond.absolute, 0.5001, 1e-12);
  EXPECT_NEAR(beyond.relative, 0.5001 / 4, 1e-12);
  EXPECT_THAT(beyond.index, ElementsAre(1));
  EXPECT_EQ(beyond.actual, 0.5001);
  EXPECT_EQ(beyond.expected, 0);
}

TEST(CompareEntryTest, ScaleIsAtLeastAThousandth) {
  const at::Tensor zeros = Doubles({0, 0});
  EXPECT_TRUE(CompareEntry("x", Doubles({0, 0.9999e-7}), zeros, 1e-4).ok);
  EXPECT_FALSE(CompareEntry("x", Doubles({0, 1.0001e-7}), zeros, 1e-4).ok);
  // Only the expected side sets the scale.
  EXPECT_FALSE(CompareEntry("x", Doubles({0, 1000}), zeros, 0.5).ok);
}

TEST(CompareEntryTest, ToleranceZeroMeansEqual) {
  EXPECT_TRUE(CompareEntry("x", Doubles({1, 2}), Doubles({1, 2}), 0).ok);
  EXPECT_FALSE(CompareEntry("x", Doubles({1, std::nextafter(2, 3)}), Doubles({1, 2}), 0).ok);
}

TEST(CompareEntryTest, FindsThePlaceInAnyShape) {
  at::Tensor actual = at::zeros({2, 3, 4}, at::kDouble);
  actual[1][0][2] = -3;
  actual[1][2][1] = 2;
  const EntryDifference difference =
      CompareEntry("x", actual, at::zeros({2, 3, 4}, at::kDouble), 1e-4);
  EXPECT_THAT(difference.index, ElementsAre(1, 0, 2));
  EXPECT_EQ(difference.absolute, 3);
}

TEST(CompareEntryTest, NothingButFiniteNumbersPasses) {
  const double nan = std::numeric_limits<double>::quiet_NaN(),
               infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {nan, infinity, -infinity}) {
    for (const auto& [actual, expected] :
         {std::pair(bad, 1.0), std::pair(1.0, bad), std::pair(bad, bad)}) {
      const EntryDifference difference =
          CompareEntry("x", Doubles({1, actual}), Doubles({1, expected}), 1);
      EXPECT_FALSE(difference.ok) << actual << ", " << expected;
      EXPECT_THAT(difference.index, ElementsAre(1)) << actual << ", " << expected;
      EXPECT_EQ(difference.absolute, infinity) << actual << ", " << expected;
    }
  }
}

TEST(CompareEntryTest, ComparesOtherPrecisionsInDouble) {
  const at::Tensor expected = Doubles({1, 1.0 / 3});
  EXPECT_TRUE(CompareEntry("x", expected.to(at::kFloat), expected, 1e-7).ok);
  EXPECT_FALSE(CompareEntry("x", expected.to(at::kFloat), expected, 1e-9).ok);
}

TEST(CompareEntryTest, IntegersMustBeEqual) {
  const at::Tensor expected = Integers({5, 6, 7});
  EXPECT_TRUE(CompareEntry("x", Integers({5, 6, 7}), expected, 0).ok);
  const EntryDifference difference = CompareEntry("x", Integers({5, 8, 9}), expected, 1);
  EXPECT_FALSE(difference.ok);
  EXPECT_TRUE(difference.exact);
  EXPECT_EQ(difference.unequal, 2);
  EXPECT_THAT(difference.index, ElementsAre(1));
  EXPECT_EQ(difference.actual, 8);
}

TEST(CompareEntryTest, OtherShapesAndKindsCannotBeCompared) {
  const at::Tensor numbers = Doubles({1, 2}), integers = Integers({1, 2});
  EXPECT_THAT(CompareEntry("x", numbers.view({1, 2}), numbers, 1).problem, HasSubstr("[1,2]"));
  EXPECT_FALSE(CompareEntry("x", numbers.view({1, 2}), numbers, 1).ok);
  EXPECT_FALSE(CompareEntry("x", numbers.narrow(0, 0, 1), numbers, 1).ok);
  EXPECT_FALSE(CompareEntry("x", integers, numbers, 1).ok);
  EXPECT_FALSE(CompareEntry("x", numbers, integers, 1).ok);
  EXPECT_THAT(CompareEntry("x", integers.to(at::kByte), integers, 1).problem, HasSubstr("I64"));
}

TEST(GoldenComparisonTest, EveryEntryOfTheFileMustBeCompared) {
  const std::map<std::string, at::Tensor> entries = {{"a", Doubles({1})}, {"b", Integers({2})}};
  GoldenComparison comparison(entries, 1e-4);
  EXPECT_TRUE(comparison.Wants("a"));
  EXPECT_FALSE(comparison.Wants("c"));
  comparison.Compare("a", Doubles({1}));
  comparison.Compare("c", Doubles({1}));  // more than the file has is nobody's fault
  const std::vector<EntryDifference> differences = comparison.Finish();
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_TRUE(differences[0].ok);
  EXPECT_FALSE(differences[1].ok);
  EXPECT_EQ(differences[1].name, "b");
  EXPECT_THAT(differences[1].problem, HasSubstr("not compared"));
}

}  // namespace
}  // namespace hypermoe
