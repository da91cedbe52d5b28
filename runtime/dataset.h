// From token files to batches: which tokens a row of a step holds, the same at every layout and
// after any resume.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "configs/run.pb.h"
#include "model/batch.h"
#include "runtime/status.h"
#include "runtime/token_file.h"

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

struct Splits {
  TokenRange train;
  TokenRange validation;
  std::string fingerprint;  // of the files and how they were split
};

// Opens data.train and data.validation, or splits the first: its last floor(validation_fraction *
// tokens) tokens are validation. Errors: missing data.train, an id not below vocab_size, too few
// tokens for one training row of sequence_length or for one validation prediction.
absl::StatusOr<Splits> OpenSplits(const DataConfig& config, const ModelConfig& model);

// Training rows. Row r of all time (r = step * batch_size + row) is in epoch e = r / W of W windows
// of sequence_length + 1 tokens (neighbours share one). An epoch visits every window once, in an
// order that is a keyed bijection of (seed, epoch), after shifting all windows by a keyed offset
// below sequence_length. W = floor(tokens / sequence_length) - 1, at least 1, so that they fit at
// every offset (a single window may have fewer offsets). Nothing is stored: the position is the
// step.
class TrainingRows {
 public:
  // At least sequence_length + 1 tokens.
  TrainingRows(TokenRange tokens, int64_t sequence_length, int64_t batch_size, uint64_t seed);
  // Rows [row_begin, row_end) of the global batch of `step` (from 0).
  Batch Rows(int64_t step, int64_t row_begin, int64_t row_end) const;
  // The first token of row r's window, within the range: for tests of the order.
  int64_t WindowStart(int64_t r) const;

 private:
  TokenRange tokens_;
  int64_t sequence_length_, batch_size_;
  uint64_t seed_;
};

// Validation windows: each token of the range is predicted exactly once (the first one too where
// the file has a token before the range to predict it from). The last window is filled up with
// ignored labels.
class ValidationWindows {
 public:
  ValidationWindows(TokenRange tokens, int64_t sequence_length);
  int64_t size() const;
  int64_t num_predictions() const;  // labels that count, over all windows
  // Windows begin, begin + stride, ... below end, as rows; row ids are the windows' numbers.
  Batch Windows(int64_t begin, int64_t end, int64_t stride = 1) const;

 private:
  int64_t FirstPredicted() const;  // token of the file

  TokenRange tokens_;
  int64_t sequence_length_;
};

}  // namespace hypermoe
