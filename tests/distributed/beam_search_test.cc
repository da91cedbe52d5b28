// Rows cut over ranks decode as they do together, with all ranks in every step.
#include "runtime/beam_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "parallel/partition.h"
#include "tests/support/mpi_test.h"
#include "tests/support/random_logits.h"

namespace hypermoe {
namespace {

constexpr int64_t kRows = 3;  // of four ranks one has none

at::Tensor Prompts(RowRange rows) {
  std::vector<at::Tensor> prompts;
  for (int64_t row = 0; row < kRows; ++row) prompts.push_back(at::tensor({row, row}, at::kLong));
  return at::stack(prompts).narrow(0, rows.begin, rows.size());
}

RowRange MyRows() { return RowsOfRank(kRows, World()->size(), World()->rank()); }

// As a forward pass does whose experts are sharded: counts who takes part.
NextLogits WithAllRanks(const NextLogits& next) {
  return [next](const at::Tensor& ids_NL, const at::Tensor& parents_N) {
    int64_t ranks = 1;
    World()->AllReduceSum(at::from_blob(&ranks, {1}, at::kLong));
    EXPECT_EQ(ranks, World()->size());
    return next(ids_NL, parents_N);
  };
}

TEST(BeamSearchTest, RowsCutOverRanksDecodeAsTogether) {
  for (const int64_t beams : {1, 3}) {
    BeamSearchOptions options;
    options.beams = beams;
    options.end_id = 1;
    options.max_length = 12;
    RandomLogits logits(9, "rows", 1);
    const auto all =
        BeamSearch(options, Prompts({0, kRows}), std::ref(logits), *NewSelfCommunicator("alone"));
    const int calls = logits.calls();
    RandomLogits of_mine(9, "rows", 1);
    const auto mine =
        BeamSearch(options, Prompts(MyRows()), WithAllRanks(std::ref(of_mine)), *World());
    ASSERT_TRUE(all.ok() && mine.ok());
    EXPECT_EQ(of_mine.calls(), calls) << "steps of the row that takes longest";
    ASSERT_EQ(static_cast<int64_t>(mine->size()), MyRows().size());
    for (size_t i = 0; i < mine->size(); ++i) {
      const DecodedRow& row = (*all)[static_cast<size_t>(MyRows().begin) + i];
      EXPECT_EQ((*mine)[i].ids, row.ids);
      EXPECT_EQ((*mine)[i].score, row.score);
    }
  }
}

TEST(BeamSearchTest, BadLogitsOfOneRankAreEveryonesError) {
  BeamSearchOptions options;
  options.max_length = 9;
  const bool last = MyRows().size() > 0 && MyRows().end == kRows;
  RandomLogits random(9, "bad");
  const auto decoded =
      BeamSearch(options, Prompts(MyRows()),
                 WithAllRanks([&](const at::Tensor& ids_NL, const at::Tensor& parents_N) {
                   const at::Tensor logits_NV = random(ids_NL, parents_N);
                   if (last && ids_NL.size(1) == 4)
                     logits_NV[-1][2] = std::numeric_limits<double>::quiet_NaN();
                   return logits_NV;
                 }),
                 *World());
  EXPECT_EQ(ExitCodeOf(decoded.status()), ExitCode::kInternal);
  EXPECT_THAT(std::string(decoded.status().message()), testing::HasSubstr("not numbers"));
}

}  // namespace
}  // namespace hypermoe
