#include "runtime/dataset.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/keyed_permutation.h"

namespace hypermoe {
namespace {

// Which random numbers are drawn under a seed, so that no two uses share any.
constexpr uint64_t kOrderStream = 0x6F72646572;     // "order"
constexpr uint64_t kOffsetStream = 0x6F6666736574;  // "offset"

uint64_t StreamKey(uint64_t seed, uint64_t stream, int64_t epoch) {
  return KeyedHash(KeyedHash(seed, stream), static_cast<uint64_t>(epoch));
}

// Windows of an epoch: as many as fit whatever the offset, but at least one.
int64_t WindowsPerEpoch(int64_t num_tokens, int64_t sequence_length) {
  return std::max<int64_t>(1, num_tokens / sequence_length - 1);
}

Batch EmptyBatch(int64_t rows, int64_t sequence_length) {
  // Zeros, because a short window's inputs are not all written.
  return {at::zeros({rows, sequence_length}, at::kLong),
          at::empty({rows, sequence_length}, at::kLong), at::empty({rows}, at::kLong)};
}

// Fills row `row` with the `count` predictions that start from token `first`; the rest is ignored.
void FillRow(const TokenFile& file, int64_t first, int64_t count, int64_t row,
             std::vector<int64_t>* ids, Batch* batch) {
  const int64_t sequence_length = batch->labels_BS.size(1);
  ids->resize(static_cast<size_t>(count + 1));
  file.Read(first, count + 1, ids->data());
  int64_t* inputs = batch->input_ids_BS.data_ptr<int64_t>() + row * sequence_length;
  int64_t* labels = batch->labels_BS.data_ptr<int64_t>() + row * sequence_length;
  std::copy_n(ids->data(), count, inputs);
  std::copy_n(ids->data() + 1, count, labels);
  std::fill(labels + count, labels + sequence_length, kIgnoredLabel);
}

absl::Status CheckLengths(const Splits& splits, const DataConfig& config, int64_t sequence_length) {
  if (splits.train.size() < sequence_length + 1) {
    return DataError(
        absl::StrCat("data.train=", config.train(), " has ", splits.train.size(),
                     " tokens for training, but a row of model.sequence_length=", sequence_length,
                     " needs ", sequence_length + 1, ": give more text, or shorten the sequence"));
  }
  if (ValidationWindows(splits.validation, sequence_length).num_predictions() > 0)
    return absl::OkStatus();
  if (config.validation().empty()) {
    return DataError(absl::StrCat(
        "data.validation_fraction=", config.validation_fraction(), " of the ",
        splits.train.size() + splits.validation.size(), " tokens of data.train=", config.train(),
        " leaves none to validate on: raise it, or give data.validation"));
  }
  return DataError(absl::StrCat("data.validation=", config.validation(), " has ",
                                splits.validation.size(),
                                " tokens, but at least 2 are needed: give more text"));
}

}  // namespace

absl::StatusOr<TokenRange> OpenTokens(const std::string& prefix, int64_t vocab_size) {
  ASSIGN_OR_RETURN(std::shared_ptr<const TokenFile> file, TokenFile::Open(prefix));
  RETURN_IF_ERROR(file->CheckIds(vocab_size));
  const int64_t end = file->num_tokens();
  return TokenRange{std::move(file), 0, end};
}

absl::StatusOr<Splits> OpenSplits(const DataConfig& config, const ModelConfig& model) {
  if (config.train().empty()) {
    return ConfigError(
        "data.train is not set: give the prefix of a token file made by `hypermoe prepare`, such "
        "as --set "
        "data.train=data/mine");
  }
  Splits splits;
  ASSIGN_OR_RETURN(splits.train, OpenTokens(config.train(), model.vocab_size()));
  if (config.validation().empty()) {
    const auto held_out = static_cast<int64_t>(
        std::floor(config.validation_fraction() * static_cast<double>(splits.train.size())));
    splits.validation = splits.train;
    splits.train.end -= held_out;
    splits.validation.begin = splits.train.end;
  } else {
    ASSIGN_OR_RETURN(splits.validation, OpenTokens(config.validation(), model.vocab_size()));
  }
  RETURN_IF_ERROR(CheckLengths(splits, config, model.sequence_length()));
  splits.fingerprint =
      absl::StrCat("train ", splits.train.file->fingerprint(), "[", splits.train.begin, ",",
                   splits.train.end, ") validation ", splits.validation.file->fingerprint(), "[",
                   splits.validation.begin, ",", splits.validation.end, ")");
  return splits;
}

TrainingRows::TrainingRows(TokenRange tokens, int64_t sequence_length, int64_t batch_size,
                           uint64_t seed)
    : tokens_(std::move(tokens)),
      sequence_length_(sequence_length),
      batch_size_(batch_size),
      seed_(seed) {}

int64_t TrainingRows::WindowStart(int64_t r) const {
  const int64_t windows = WindowsPerEpoch(tokens_.size(), sequence_length_);
  const int64_t epoch = r / windows;
  // Offsets that leave room for all windows; every one below sequence_length unless there is a
  // single window.
  const int64_t offsets = std::min(sequence_length_, tokens_.size() - windows * sequence_length_);
  const uint64_t offset =
      KeyedHash(StreamKey(seed_, kOffsetStream, epoch), 0) % static_cast<uint64_t>(offsets);
  const KeyedPermutation order(StreamKey(seed_, kOrderStream, epoch),
                               static_cast<uint64_t>(windows));
  const uint64_t window = order(static_cast<uint64_t>(r % windows));
  return static_cast<int64_t>(offset) + static_cast<int64_t>(window) * sequence_length_;
}

Batch TrainingRows::Rows(int64_t step, int64_t row_begin, int64_t row_end) const {
  Batch batch = EmptyBatch(row_end - row_begin, sequence_length_);
  std::vector<int64_t> ids;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t first = tokens_.begin + WindowStart(step * batch_size_ + row);
    FillRow(*tokens_.file, first, sequence_length_, row - row_begin, &ids, &batch);
    batch.row_ids_B.data_ptr<int64_t>()[row - row_begin] = row;
  }
  return batch;
}

ValidationWindows::ValidationWindows(TokenRange tokens, int64_t sequence_length)
    : tokens_(std::move(tokens)), sequence_length_(sequence_length) {}

int64_t ValidationWindows::num_predictions() const {
  return std::max<int64_t>(0, tokens_.end - FirstPredicted());
}

int64_t ValidationWindows::size() const {
  return (num_predictions() + sequence_length_ - 1) / sequence_length_;
}

int64_t ValidationWindows::FirstPredicted() const { return std::max<int64_t>(1, tokens_.begin); }

Batch ValidationWindows::Windows(int64_t begin, int64_t end, int64_t stride) const {
  const int64_t rows = end > begin ? (end - begin + stride - 1) / stride : 0;
  Batch batch = EmptyBatch(rows, sequence_length_);
  std::vector<int64_t> ids;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t window = begin + row * stride;
    const int64_t done = window * sequence_length_;
    FillRow(*tokens_.file, FirstPredicted() - 1 + done,
            std::min(sequence_length_, num_predictions() - done), row, &ids, &batch);
    batch.row_ids_B.data_ptr<int64_t>()[row] = window;
  }
  return batch;
}

}  // namespace hypermoe
