// The rows of a task's examples: what an encoder reads of each, and what the decoder is to write.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "runtime/task.h"
#include "runtime/token_lists.h"
#include "runtime/tokenizer.h"
#include "runtime/training_data.h"

namespace hypermoe {

// Lengths of rows in tokens, end ids included.
struct ExampleLengths {
  int64_t source = 0;
  int64_t target = 0;
};

// Examples as token ids, each closed by the end id.
struct ExampleTokens {
  TokenLists sources, targets;
  int64_t cut_sources = 0, cut_targets = 0;  // those that were longer than allowed
};

// What is longer than its length, which is at least 1, loses tokens before the end id.
ExampleTokens TokensOf(absl::Span<const TaskExample> examples, const Tokenizer& tokenizer,
                       const ExampleLengths& longest);

// Rows of examples, filled up behind their tokens: sources with pad_id, targets with kIgnoredLabel.
class ExampleBatches {
 public:
  // `padded`: all rows get these lengths; null: they are as long as the longest of their pass.
  ExampleBatches(std::shared_ptr<const ExampleTokens> tokens, int64_t pad_id,
                 const ExampleLengths* padded);
  const ExampleTokens& tokens() const { return *tokens_; }
  int64_t size() const { return tokens_->sources.size(); }
  // The examples of these numbers that `mine`, counted from the first of them, chooses, with these
  // row ids.
  Batch Make(absl::Span<const int64_t> pass, const RowRange& mine,
             absl::Span<const int64_t> row_ids) const;

 private:
  std::shared_ptr<const ExampleTokens> tokens_;
  int64_t pad_id_;
  ExampleLengths padded_;  // 0: as the longest
};

// Training rows. Row r of all time (r = step * batch_size + row) is in epoch e = r / n of n
// examples, which visits every one once, in an order that is a keyed bijection of (seed, e). So a
// batch may hold the end of one epoch and the begin of the next; a run of E epochs has as few steps
// as make every example's E visits complete, and the rest of the last batch is from the epoch
// after.
class ExampleRows : public TrainingData {
 public:
  // At least one example.
  ExampleRows(ExampleBatches batches, int64_t batch_size, uint64_t seed);
  Batch Rows(int64_t step, const RowRange& micro_batch, const RowRange& mine) const override;
  int64_t NumLabels(int64_t step) const override;
  int64_t NumTokens(int64_t begin, int64_t end) const override;
  // The number of the example that is row r of all time.
  int64_t ExampleOf(int64_t r) const;

 private:
  ExampleBatches batches_;
  int64_t batch_size_;
  uint64_t seed_;
};

// Every example once, in the order of the file.
class ExampleWindows : public ValidationData {
 public:
  explicit ExampleWindows(ExampleBatches batches) : batches_(std::move(batches)) {}
  int64_t size() const override { return batches_.size(); }
  int64_t num_predictions() const override {
    return static_cast<int64_t>(batches_.tokens().targets.all_ids().size());
  }
  Batch Rows(const RowRange& pass, const RowRange& mine, int64_t stride) const override;

 private:
  ExampleBatches batches_;
};

}  // namespace hypermoe
