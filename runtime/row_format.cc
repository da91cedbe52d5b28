#include "runtime/row_format.h"

#include <algorithm>
#include <cstddef>
#include <optional>

#include "absl/strings/str_cat.h"
#include "model/batch.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

class NextTokenFormat : public RowFormat {
 public:
  explicit NextTokenFormat(int64_t sequence_length)
      : RowFormat({.inputs = sequence_length,
                   .labels = sequence_length,
                   .stride = sequence_length,
                   .overlap = 1}) {}

  int64_t NumLabels(int64_t size) const override { return size; }

  int64_t Fill(absl::Span<const int64_t> tokens, uint64_t, absl::Span<int64_t> inputs,
               absl::Span<int64_t> labels) const override {
    const auto size = static_cast<std::ptrdiff_t>(tokens.size()) - 1;
    std::copy_n(tokens.begin(), size, inputs.begin());
    std::fill(inputs.begin() + size, inputs.end(), int64_t{0});
    std::copy_n(tokens.begin() + 1, size, labels.begin());
    std::fill(labels.begin() + size, labels.end(), kIgnoredLabel);
    return size;
  }
};

class SpanCorruptionFormat : public RowFormat {
 public:
  SpanCorruptionFormat(int64_t sequence_length, const SpanCounts& counts,
                       const SpanOptions& options, const SpanIds& ids, int64_t pad_id)
      : RowFormat({.inputs = sequence_length,
                   .labels = counts.targets(),
                   .stride = counts.tokens,
                   .shortest = 2,
                   .masked = true}),
        options_(options),
        ids_(ids),
        pad_id_(pad_id) {}

  int64_t NumLabels(int64_t size) const override { return CountSpans(size, options_).targets(); }

  int64_t Fill(absl::Span<const int64_t> tokens, uint64_t key, absl::Span<int64_t> inputs,
               absl::Span<int64_t> labels) const override {
    const SpanCounts counts = CountSpans(static_cast<int64_t>(tokens.size()), options_);
    const RowLengths lengths = CorruptText(tokens, DrawSpans(counts, key), ids_, inputs, labels);
    std::fill(inputs.begin() + lengths.inputs, inputs.end(), pad_id_);
    std::fill(labels.begin() + lengths.targets, labels.end(), kIgnoredLabel);
    return lengths.inputs;
  }

 private:
  const SpanOptions options_;
  const SpanIds ids_;
  const int64_t pad_id_;
};

absl::StatusOr<SpanIds> CheckIds(const DataConfig& data, const ModelConfig& model) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(data.tokenizer());
  if (!tokenizer.ok()) {
    return ConfigError(absl::StrCat("data.tokenizer: ", tokenizer.status().message()));
  }
  const std::optional<int32_t> sentinel = (*tokenizer)->first_sentinel();
  if (!sentinel.has_value()) {
    return ConfigError(absl::StrCat(
        "data.tokenizer ", data.tokenizer(),
        " has no sentinels to mark gaps with, as model.family switch_transformers is trained on: "
        "give spm:FILE, a SentencePiece model such as T5's spiece.model, or byte"));
  }
  if (*sentinel >= model.vocab_size()) {
    return ConfigError(absl::StrCat("model.vocab_size (", model.vocab_size(), ") must be at least ",
                                    *sentinel + 1,
                                    " with model.family switch_transformers: the sentinels of "
                                    "data.tokenizer ",
                                    data.tokenizer(), " are ids up to ", *sentinel, ": raise it"));
  }
  if (model.end_id() != (*tokenizer)->end_of_text()) {
    return ConfigError(absl::StrCat("model.end_id is ", model.end_id(), ", but data.tokenizer ",
                                    data.tokenizer(), " ends texts with id ",
                                    (*tokenizer)->end_of_text(),
                                    ": set it to that, or give the tokenizer of the token files"));
  }
  return SpanIds{*sentinel, model.end_id()};
}

// That rows of `sequence_length` can be made.
absl::Status CheckCounts(const SpanCounts& counts, int64_t sequence_length,
                         const SpanOptions& options) {
  const std::string what =
      absl::StrCat("model.sequence_length (", sequence_length, ") with data.noise_density ",
                   options.noise_density, " and data.mean_span_length ", options.mean_span_length);
  if (counts.spans > kSentinels) {
    return ConfigError(absl::StrCat(what, " gives rows with ", counts.spans,
                                    " gaps, but there are ", kSentinels,
                                    " sentinels to mark them with: shorten the sequence, or raise "
                                    "data.mean_span_length"));
  }
  if (counts.inputs() != sequence_length) {
    return ConfigError(absl::StrCat(
        what, " gives inputs of ", counts.inputs(), " or ",
        CountSpans(counts.tokens + 1, options).inputs(), " tokens, but none of that length: ",
        sequence_length < 3 ? "lengthen the sequence" : "lower data.noise_density"));
  }
  return absl::OkStatus();
}

}  // namespace

std::shared_ptr<const RowFormat> NextTokenRows(int64_t sequence_length) {
  return std::make_shared<const NextTokenFormat>(sequence_length);
}

std::shared_ptr<const RowFormat> SpanCorruptionRows(int64_t sequence_length,
                                                    const SpanOptions& options, const SpanIds& ids,
                                                    int64_t pad_id) {
  return std::make_shared<const SpanCorruptionFormat>(
      sequence_length, LongestText(sequence_length, options), options, ids, pad_id);
}

absl::StatusOr<std::shared_ptr<const RowFormat>> MakeRowFormat(const DataConfig& data,
                                                               const ModelConfig& model) {
  if (model.family() != ModelConfig::switch_transformers) {
    return NextTokenRows(model.sequence_length());
  }
  ASSIGN_OR_RETURN(const SpanIds ids, CheckIds(data, model));
  const SpanOptions options{data.noise_density(), data.mean_span_length()};
  RETURN_IF_ERROR(
      CheckCounts(LongestText(model.sequence_length(), options), model.sequence_length(), options));
  return SpanCorruptionRows(model.sequence_length(), options, ids, model.pad_id());
}

}  // namespace hypermoe
