#include "tools/benchmark.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "tools/collective_cases.h"
#include "tools/random_tokens.h"

namespace hypermoe {
namespace {

TEST(QuartilesTest, InterpolatesBetweenSortedValues) {
  const Quartiles odd = QuartilesOf({5, 1, 3, 2, 4});
  EXPECT_DOUBLE_EQ(odd.lower, 2);
  EXPECT_DOUBLE_EQ(odd.median, 3);
  EXPECT_DOUBLE_EQ(odd.upper, 4);
  const Quartiles even = QuartilesOf({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(even.lower, 1.75);
  EXPECT_DOUBLE_EQ(even.median, 2.5);
  EXPECT_DOUBLE_EQ(even.upper, 3.25);
  EXPECT_DOUBLE_EQ(QuartilesOf({7}).upper, 7);
}

TEST(RandomTokensTest, AreBelowTheVocabularyAndTheSameFromAnyStart) {
  const std::vector<WeightedTokens> files = RandomTokens(1000, 17);
  ASSERT_EQ(files.size(), 1u);
  ASSERT_EQ(files[0].tokens.size(), 1000);
  std::vector<int64_t> all(1000), tail(400);
  files[0].tokens.file->Read(0, 1000, all.data());
  files[0].tokens.file->Read(600, 400, tail.data());
  EXPECT_EQ(std::vector<int64_t>(all.begin() + 600, all.end()), tail);
  std::vector<int64_t> counts(17, 0);
  for (const int64_t id : all) ++counts.at(static_cast<size_t>(id));
  for (const int64_t count : counts) EXPECT_GT(count, 20);  // evenly: 59 on average
}

TEST(CollectiveCasesTest, CountsEveryElementThatIsWrong) {
  const std::unique_ptr<Communicator> self = NewSelfCommunicator("world");
  for (CollectiveCase collective : AllCollectiveCases()) {
    EXPECT_EQ(CountWrong(collective, 12, *self), 0) << collective.name;
    const auto call = collective.call;
    collective.call = [&call](const at::Tensor& operand, Communicator& world) {
      at::Tensor result = call(operand, world).clone();
      result.slice(0, 3, 5).add_(1);
      return result;
    };
    EXPECT_EQ(CountWrong(collective, 12, *self), 2) << collective.name;
    collective.call = [&call](const at::Tensor& operand, Communicator& world) {
      return call(operand, world).slice(0, 0, 11);
    };
    EXPECT_EQ(CountWrong(collective, 12, *self), 12) << collective.name;
  }
}

}  // namespace
}  // namespace hypermoe
