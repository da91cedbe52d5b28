// From token files to batches: which tokens a row of a step holds, the same at every layout and
// after any resume.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "model/batch.h"
#include "parallel/process_mesh.h"
#include "runtime/row_format.h"
#include "runtime/row_schedule.h"
#include "runtime/status.h"
#include "runtime/token_file.h"
#include "runtime/training_data.h"

namespace hypermoe {

// A contiguous part [begin, end) of a token file.
struct TokenRange {
  std::shared_ptr<const TokenFile> file;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// All of a token file, every id below `vocab_size`.
absl::StatusOr<TokenRange> OpenTokens(const std::string& prefix, int64_t vocab_size);

// A file to train on, drawn in proportion to its weight.
struct WeightedTokens {
  TokenRange tokens;
  double weight = 1;
};

struct Splits {
  std::vector<WeightedTokens> train;
  std::vector<TokenRange> validation;
  std::shared_ptr<const RowFormat> format;
  std::string fingerprint;  // of all files, their order and weights, and how they were split
};

// Opens data.train and data.validation. Without the second, the last floor(validation_fraction *
// tokens) tokens of each file of the first are validation. Errors: those of MakeRowFormat, no
// data.train, an id not below vocab_size, too few tokens in a file for one training row, or in all
// for one validation prediction.
absl::StatusOr<Splits> OpenSplits(const DataConfig& config, const ModelConfig& model);

int64_t NumTokens(const std::vector<WeightedTokens>& files);

// Training rows. Row r of all time (r = step * batch_size + row) comes from the file, and is the
// file's own k-th row, that a RowSchedule of the weights says. It is in the file's epoch e = k / W
// of W windows as the rows' format cuts them, `stride` tokens apart. An epoch visits every window
// once, in an order that is a keyed bijection of (seed, file, epoch), after shifting all windows by
// a keyed offset below `stride`. W = floor((tokens - overlap + 1) / stride) - 1, at least 1, so
// that they fit at every offset (a single window may have fewer offsets). What is random in a row
// is keyed by (seed, file, epoch, window), new in every epoch. Nothing is stored: the position is
// the step.
//
// Windows run across documents, which a token file holds one after the other, each closed by the
// tokenizer's end-of-text id (unless prepared without): a row may hold the end of one, that id, and
// the start of the next. The model attends across it. Rows(), WindowOf() may be called from several
// threads.
class TrainingRows : public TrainingData {
 public:
  // Where a row comes from.
  struct Window {
    int64_t file = 0;
    int64_t epoch = 0;   // of the file
    int64_t number = 0;  // within the epoch, by position
    int64_t first = 0;   // its first token, within the file's range
  };

  // At least one file, each of at least stride + overlap tokens; weights as for RowSchedule.
  TrainingRows(std::vector<WeightedTokens> files, std::shared_ptr<const RowFormat> format,
               int64_t batch_size, uint64_t seed);
  // Of NextTokenRows.
  TrainingRows(std::vector<WeightedTokens> files, int64_t sequence_length, int64_t batch_size,
               uint64_t seed);
  // Rows [row_begin, row_end) of the global batch of `step` (from 0).
  Batch Rows(int64_t step, int64_t row_begin, int64_t row_end) const;
  Batch Rows(int64_t step, const RowRange&, const RowRange& mine) const override {
    return Rows(step, mine.begin, mine.end);
  }
  // All labels of full windows.
  int64_t NumLabels(int64_t) const override { return batch_size_ * format_->sizes().labels; }
  int64_t NumTokens(int64_t begin, int64_t end) const override {
    return (end - begin) * batch_size_ * format_->sizes().inputs;
  }
  Window WindowOf(int64_t r) const;
  // W of a file.
  int64_t WindowsPerEpoch(int64_t file) const;

 private:
  int64_t Places(int64_t file) const;

  std::vector<WeightedTokens> files_;
  std::shared_ptr<const RowSchedule> schedule_;
  std::shared_ptr<const RowFormat> format_;
  int64_t batch_size_;
  uint64_t seed_;
};

// The rows of the global batch that a micro-batch is a fixed set of.
RowRange RowsOfMicroBatch(const TrainConfig& train, int64_t micro_batch);
// Those of them that `rank` of `world_size` works on: they are cut over the ranks afterwards, in
// units of `unit` rows (UnitsOfRank). May be empty.
RowRange RowsOfMicroBatch(const TrainConfig& train, int64_t micro_batch, int world_size, int rank,
                          int64_t unit = 1);

// Validation windows: the ranges cut into windows one after the other. So with NextTokenRows each
// token is predicted exactly once (the first one of a range too where its file has a token before
// to predict it from). A range's last window is filled up, so that no window holds two ranges, or
// left out if it is below the format's shortest. What is random is keyed by the window's number
// alone.
class ValidationWindows : public ValidationData {
 public:
  ValidationWindows(std::vector<TokenRange> ranges, std::shared_ptr<const RowFormat> format);
  // Of NextTokenRows.
  ValidationWindows(std::vector<TokenRange> ranges, int64_t sequence_length);
  int64_t size() const override;
  int64_t num_predictions() const override;
  // Windows begin, begin + stride, ... below end, as rows; row ids are the windows' numbers.
  Batch Windows(int64_t begin, int64_t end, int64_t stride = 1) const;
  Batch Rows(const RowRange&, const RowRange& mine, int64_t stride) const override {
    return Windows(mine.begin * stride, mine.end * stride, stride);
  }

 private:
  std::vector<TokenRange> ranges_;
  std::shared_ptr<const RowFormat> format_;
};

}  // namespace hypermoe
