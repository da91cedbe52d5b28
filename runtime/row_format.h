// What the tokens of a window become: a row that a model is trained on.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "configs/run.pb.h"
#include "runtime/span_corruption.h"
#include "runtime/status.h"

namespace hypermoe {

// Windows follow each other `stride` tokens apart, and read `overlap` tokens of the next one too. A
// window's size is counted without those: `stride`, or less at the end of a text. For use by
// several threads.
class RowFormat {
 public:
  struct Sizes {
    int64_t inputs = 0;  // of a row
    int64_t labels = 0;
    int64_t stride = 0;
    int64_t overlap = 0;
    int64_t shortest = 1;  // a smaller window makes no row
    bool masked = false;   // inputs that stand for no token must not be attended to
  };

  explicit RowFormat(const Sizes& sizes) : sizes_(sizes) {}
  virtual ~RowFormat() = default;
  const Sizes& sizes() const { return sizes_; }

  // Labels of a window of `size` tokens that count; of a full one: all of the row.
  virtual int64_t NumLabels(int64_t size) const = 0;

  // Makes the row of a window's tokens, its size and `overlap` many; what is random follows from
  // `key`. Fills `inputs` and `labels`, the latter with kIgnoredLabel behind those that count.
  // Returns how many inputs stand for tokens; the rest is filled up.
  virtual int64_t Fill(absl::Span<const int64_t> tokens, uint64_t key, absl::Span<int64_t> inputs,
                       absl::Span<int64_t> labels) const = 0;

 private:
  const Sizes sizes_;
};

// Each position predicts the next token: a window's last label is the first token of the next one.
std::shared_ptr<const RowFormat> NextTokenRows(int64_t sequence_length);

// Inputs of sequence_length with gaps, and what was in them as labels: the longest text that gives
// such inputs (LongestText).
std::shared_ptr<const RowFormat> SpanCorruptionRows(int64_t sequence_length,
                                                    const SpanOptions& options, const SpanIds& ids,
                                                    int64_t pad_id);

// The format of the model's family. ConfigError where data and model do not allow it: a tokenizer
// without sentinels, more spans than sentinels, an end_id that is not the tokenizer's, and so on.
absl::StatusOr<std::shared_ptr<const RowFormat>> MakeRowFormat(const DataConfig& data,
                                                               const ModelConfig& model);

}  // namespace hypermoe
