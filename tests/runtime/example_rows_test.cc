// The rows of a task's examples: which example is where, what fills them up, and that none of it
// depends on how a micro-batch is cut.
#include "runtime/example_rows.h"

#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace hypermoe {
namespace {

constexpr int64_t kEnd = 256, kPad = 300;

std::vector<int64_t> Values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

// Example i has a source of i + 1 letters and a target of i % 3.
std::vector<TaskExample> Examples(int count) {
  std::vector<TaskExample> examples;
  for (int i = 0; i < count; ++i) {
    TaskExample example;
    example.source = std::string(static_cast<size_t>(i + 1), static_cast<char>('a' + i));
    example.target = std::string(static_cast<size_t>(i % 3), static_cast<char>('A' + i));
    examples.push_back(example);
  }
  return examples;
}

std::shared_ptr<const ExampleTokens> Tokens(int count, const ExampleLengths& longest = {50, 50}) {
  return std::make_shared<ExampleTokens>(
      TokensOf(Examples(count), *MakeTokenizer("byte").value(), longest));
}

ExampleRows Rows(int count, int64_t batch_size, uint64_t seed = 1) {
  return {ExampleBatches(Tokens(count), kPad, nullptr), batch_size, seed};
}

TEST(TokensOfTest, CutsWhatIsTooLongBeforeTheEnd) {
  const std::shared_ptr<const ExampleTokens> tokens = Tokens(5, {4, 2});
  EXPECT_EQ(tokens->cut_sources, 2);  // of 4 and 5 letters
  EXPECT_EQ(tokens->cut_targets, 1);  // of 2
  const auto source = [&](int64_t i) {
    return std::vector<int64_t>(tokens->sources[i].begin(), tokens->sources[i].end());
  };
  EXPECT_EQ(source(0), (std::vector<int64_t>{'a', kEnd}));
  EXPECT_EQ(source(2), (std::vector<int64_t>{'c', 'c', 'c', kEnd}));
  EXPECT_EQ(source(4), (std::vector<int64_t>{'e', 'e', 'e', kEnd}));
  EXPECT_EQ(tokens->targets.length(0), 1) << "the end alone";
  EXPECT_EQ(tokens->targets.length(2), 2);
  EXPECT_EQ(Tokens(5, {6, 3})->cut_sources + Tokens(5, {6, 3})->cut_targets, 0);
}

TEST(ExampleRowsTest, AnEpochVisitsEveryExampleOnceInAnOrderOfItsOwn) {
  constexpr int kExamples = 11;
  std::set<std::vector<int64_t>> orders;
  for (const uint64_t seed : {1, 2}) {
    const ExampleRows rows = Rows(kExamples, 4, seed);
    for (int64_t epoch = 0; epoch < 5; ++epoch) {
      std::vector<int64_t> order;
      for (int64_t i = 0; i < kExamples; ++i)
        order.push_back(rows.ExampleOf(epoch * kExamples + i));
      EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), size_t{kExamples});
      orders.insert(order);
    }
  }
  EXPECT_EQ(orders.size(), 10u);
}

// 11 examples in batches of 4: the third batch has the last three of an epoch and one of the next.
TEST(ExampleRowsTest, BatchesGoOnAcrossEpochs) {
  const ExampleRows rows = Rows(11, 4);
  const std::unique_ptr<Tokenizer> tokenizer = MakeTokenizer("byte").value();
  for (int64_t step = 0; step < 6; ++step) {
    const Batch batch = rows.Rows(step, {0, 4}, {0, 4});
    EXPECT_EQ(Values(batch.row_ids_B), (std::vector<int64_t>{0, 1, 2, 3}));
    for (int64_t row = 0; row < 4; ++row) {
      const int64_t example = rows.ExampleOf(step * 4 + row);
      std::vector<int32_t> ids;
      tokenizer->Encode(Examples(11)[static_cast<size_t>(example)].source, &ids);
      const auto tokens = static_cast<int64_t>(ids.size());
      EXPECT_EQ(Values(batch.input_ids_BS[row].narrow(0, 0, tokens)),
                std::vector<int64_t>(ids.begin(), ids.end()));
      EXPECT_EQ(batch.input_ids_BS[row][tokens].item<int64_t>(), kEnd);
    }
  }
}

TEST(ExampleRowsTest, RowsAreAsLongAsTheLongestOfTheMicroBatch) {
  const ExampleRows rows = Rows(11, 8);
  for (int64_t step = 0; step < 3; ++step) {
    for (const RowRange& micro_batch : {RowRange{0, 4}, RowRange{4, 8}}) {
      int64_t source = 0, target = 0;
      for (int64_t row = micro_batch.begin; row < micro_batch.end; ++row) {
        const int64_t example = rows.ExampleOf(step * 8 + row);
        source = std::max(source, example + 2);
        target = std::max(target, example % 3 + 1);
      }
      const Batch whole = rows.Rows(step, micro_batch, micro_batch);
      ASSERT_EQ(whole.input_ids_BS.size(1), source);
      ASSERT_EQ(whole.labels_BS.size(1), target);
      EXPECT_TRUE(whole.attention_mask_BS.eq(whole.input_ids_BS.ne(kPad)).all().item<bool>());
      EXPECT_EQ(whole.labels_BS.eq(kIgnoredLabel).sum().item<int64_t>(),
                4 * target - whole.labels_BS.ne(kIgnoredLabel).sum().item<int64_t>());
      // However it is cut, with an empty part too.
      for (const int64_t cut : {0, 1, 3}) {
        const int64_t middle = micro_batch.begin + cut;
        const Batch first = rows.Rows(step, micro_batch, {micro_batch.begin, middle});
        const Batch second = rows.Rows(step, micro_batch, {middle, micro_batch.end});
        EXPECT_EQ(first.input_ids_BS.size(1), source) << "without rows too";
        EXPECT_TRUE(at::cat({first.input_ids_BS, second.input_ids_BS}).equal(whole.input_ids_BS));
        EXPECT_TRUE(at::cat({first.labels_BS, second.labels_BS}).equal(whole.labels_BS));
        EXPECT_TRUE(at::cat({first.row_ids_B, second.row_ids_B}).equal(whole.row_ids_B));
      }
    }
  }
}

TEST(ExampleRowsTest, OrAsLongAsTheyCanBe) {
  const ExampleLengths longest = {20, 9};
  const ExampleRows rows(ExampleBatches(Tokens(11), kPad, &longest), 4, 1);
  const Batch batch = rows.Rows(2, {0, 2}, {0, 2});
  EXPECT_EQ(batch.input_ids_BS.size(1), 20);
  EXPECT_EQ(batch.labels_BS.size(1), 9);
}

TEST(ExampleRowsTest, CountsLabelsOfTheWholeBatchAndTokens) {
  const ExampleRows rows = Rows(11, 8);
  int64_t tokens = 0;
  for (int64_t step = 0; step < 4; ++step) {
    const Batch batch = rows.Rows(step, {0, 8}, {0, 8});
    EXPECT_EQ(rows.NumLabels(step), batch.labels_BS.ne(kIgnoredLabel).sum().item<int64_t>());
    tokens += batch.input_ids_BS.ne(kPad).sum().item<int64_t>();
    EXPECT_EQ(rows.NumTokens(0, step + 1), tokens);
  }
}

TEST(ExampleWindowsTest, HaveEveryExampleOnceInItsPlace) {
  const ExampleWindows windows(ExampleBatches(Tokens(7), kPad, nullptr));
  EXPECT_EQ(windows.size(), 7);
  EXPECT_EQ(windows.num_predictions(), 7 + 0 + 1 + 2 + 0 + 1 + 2 + 0);
  const Batch all = windows.Rows({0, 7}, {0, 7}, 1);
  EXPECT_EQ(Values(all.row_ids_B), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(Values(all.input_ids_BS.select(1, 0)),
            (std::vector<int64_t>{'a', 'b', 'c', 'd', 'e', 'f', 'g'}));
  // Every third: 0, 3, 6; of a pass of the first two, the second.
  const Batch some = windows.Rows({0, 2}, {1, 2}, 3);
  EXPECT_EQ(Values(some.row_ids_B), (std::vector<int64_t>{3}));
  EXPECT_EQ(Values(some.input_ids_BS), (std::vector<int64_t>{'d', 'd', 'd', 'd', kEnd}));
  EXPECT_FALSE(some.attention_mask_BS.defined()) << "no row is filled up";
}

}  // namespace
}  // namespace hypermoe
