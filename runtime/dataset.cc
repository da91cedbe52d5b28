#include "runtime/dataset.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/keyed_permutation.h"

namespace hypermoe {
namespace {

// Which random numbers are drawn under a seed, so that no two uses share any.
constexpr uint64_t kOrderStream = 0x6F72646572;     // "order"
constexpr uint64_t kOffsetStream = 0x6F6666736574;  // "offset"
constexpr uint64_t kFileStream = 0x66696C65;        // "file"

// The first file's keys are those of a run with one file.
uint64_t StreamKey(uint64_t seed, uint64_t stream, int64_t file, int64_t epoch) {
  uint64_t key = KeyedHash(seed, stream);
  if (file > 0) key = KeyedHash(KeyedHash(key, kFileStream), static_cast<uint64_t>(file));
  return KeyedHash(key, static_cast<uint64_t>(epoch));
}

Batch EmptyBatch(int64_t rows, int64_t sequence_length) {
  return {at::empty({rows, sequence_length}, at::kLong),
          at::empty({rows, sequence_length}, at::kLong), at::empty({rows}, at::kLong)};
}

// Fills row `row` with the `count` predictions that start from token `first`; the rest is ignored.
// By hand rather than by LibTorch's fills, which for large batches would start a second team of
// OpenMP threads where a thread of its own assembles batches.
void FillRow(const TokenFile& file, int64_t first, int64_t count, int64_t row,
             std::vector<int64_t>* ids, Batch* batch) {
  const int64_t sequence_length = batch->labels_BS.size(1);
  ids->resize(static_cast<size_t>(count + 1));
  file.Read(first, count + 1, ids->data());
  int64_t* inputs = batch->input_ids_BS.data_ptr<int64_t>() + row * sequence_length;
  int64_t* labels = batch->labels_BS.data_ptr<int64_t>() + row * sequence_length;
  std::copy_n(ids->data(), count, inputs);
  std::fill(inputs + count, inputs + sequence_length, int64_t{0});
  std::copy_n(ids->data() + 1, count, labels);
  std::fill(labels + count, labels + sequence_length, kIgnoredLabel);
}

// Of a range, the first token that has one before it to be predicted from.
int64_t FirstPredicted(const TokenRange& range) { return std::max<int64_t>(1, range.begin); }

int64_t NumPredictions(const TokenRange& range) {
  return std::max<int64_t>(0, range.end - FirstPredicted(range));
}

// Windows of a range.
int64_t NumWindows(const TokenRange& range, int64_t sequence_length) {
  return (NumPredictions(range) + sequence_length - 1) / sequence_length;
}

absl::Status CheckLengths(const Splits& splits, const DataConfig& config, int64_t sequence_length) {
  int64_t validation_tokens = 0;
  for (const TokenRange& range : splits.validation) validation_tokens += range.size();
  for (size_t i = 0; i < splits.train.size(); ++i) {
    const int64_t tokens = splits.train[i].tokens.size();
    if (tokens >= sequence_length + 1) continue;
    return DataError(
        absl::StrCat("data.train: ", config.train(static_cast<int>(i)).prefix(), " has ", tokens,
                     " tokens for training, but a row of model.sequence_length=", sequence_length,
                     " needs ", sequence_length + 1, ": give more text, or shorten the sequence"));
  }
  if (ValidationWindows(splits.validation, sequence_length).num_predictions() > 0)
    return absl::OkStatus();
  if (config.validation().empty()) {
    return DataError(absl::StrCat("data.validation_fraction=", config.validation_fraction(),
                                  " of the ", NumTokens(splits.train) + validation_tokens,
                                  " tokens of data.train leaves none to validate on: raise it, or "
                                  "give data.validation"));
  }
  return DataError(absl::StrCat("data.validation=", config.validation(), " has ", validation_tokens,
                                " tokens, but at least 2 are needed: give more text"));
}

std::string RangeText(const TokenRange& range) {
  return absl::StrCat(range.file->fingerprint(), "[", range.begin, ",", range.end, ")");
}

std::string Fingerprint(const Splits& splits) {
  std::vector<std::string> train, validation;
  for (const WeightedTokens& file : splits.train)
    train.push_back(absl::StrFormat("%s*%.17g", RangeText(file.tokens), file.weight));
  for (const TokenRange& range : splits.validation) validation.push_back(RangeText(range));
  return absl::StrCat("train ", absl::StrJoin(train, " "), " validation ",
                      absl::StrJoin(validation, " "));
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
        "as --set data.train=data/mine");
  }
  Splits splits;
  for (const TrainFile& file : config.train()) {
    ASSIGN_OR_RETURN(TokenRange tokens, OpenTokens(file.prefix(), model.vocab_size()));
    if (config.validation().empty()) {
      TokenRange held_out = tokens;
      tokens.end -= static_cast<int64_t>(
          std::floor(config.validation_fraction() * static_cast<double>(tokens.size())));
      held_out.begin = tokens.end;
      splits.validation.push_back(std::move(held_out));
    }
    splits.train.push_back({std::move(tokens), file.weight()});
  }
  if (!config.validation().empty()) {
    ASSIGN_OR_RETURN(TokenRange tokens, OpenTokens(config.validation(), model.vocab_size()));
    splits.validation.push_back(std::move(tokens));
  }
  RETURN_IF_ERROR(CheckLengths(splits, config, model.sequence_length()));
  splits.fingerprint = Fingerprint(splits);
  return splits;
}

int64_t NumTokens(const std::vector<WeightedTokens>& files) {
  int64_t tokens = 0;
  for (const WeightedTokens& file : files) tokens += file.tokens.size();
  return tokens;
}

TrainingRows::TrainingRows(std::vector<WeightedTokens> files, int64_t sequence_length,
                           int64_t batch_size, uint64_t seed)
    : files_(std::move(files)),
      sequence_length_(sequence_length),
      batch_size_(batch_size),
      seed_(seed) {
  std::vector<double> weights;
  for (const WeightedTokens& file : files_) weights.push_back(file.weight);
  schedule_ = std::make_shared<const RowSchedule>(weights);
}

// As many as fit whatever the offset, but at least one.
int64_t TrainingRows::WindowsPerEpoch(int64_t file) const {
  return std::max<int64_t>(1,
                           files_[static_cast<size_t>(file)].tokens.size() / sequence_length_ - 1);
}

TrainingRows::Window TrainingRows::WindowOf(int64_t r) const {
  const auto [file, row] = schedule_->At(r);
  const int64_t windows = WindowsPerEpoch(file);
  const int64_t epoch = row / windows;
  // Offsets that leave room for all windows; every one below sequence_length unless there is a
  // single window.
  const int64_t offsets =
      std::min(sequence_length_,
               files_[static_cast<size_t>(file)].tokens.size() - windows * sequence_length_);
  const uint64_t offset =
      KeyedHash(StreamKey(seed_, kOffsetStream, file, epoch), 0) % static_cast<uint64_t>(offsets);
  const KeyedPermutation order(StreamKey(seed_, kOrderStream, file, epoch),
                               static_cast<uint64_t>(windows));
  const uint64_t window = order(static_cast<uint64_t>(row % windows));
  return {file, epoch,
          static_cast<int64_t>(offset) + static_cast<int64_t>(window) * sequence_length_};
}

Batch TrainingRows::Rows(int64_t step, int64_t row_begin, int64_t row_end) const {
  Batch batch = EmptyBatch(row_end - row_begin, sequence_length_);
  std::vector<int64_t> ids;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const Window window = WindowOf(step * batch_size_ + row);
    const TokenRange& tokens = files_[static_cast<size_t>(window.file)].tokens;
    FillRow(*tokens.file, tokens.begin + window.first, sequence_length_, row - row_begin, &ids,
            &batch);
    batch.row_ids_B.data_ptr<int64_t>()[row - row_begin] = row;
  }
  return batch;
}

RowRange RowsOfMicroBatch(const TrainConfig& train, int64_t micro_batch, int world_size, int rank,
                          int64_t unit) {
  const RowRange micro =
      RowsOfRank(train.batch_size(), train.micro_batches(), static_cast<int>(micro_batch));
  const RowRange mine = UnitsOfRank(micro.size(), unit, world_size, rank);
  return {micro.begin + mine.begin, micro.begin + mine.end};
}

ValidationWindows::ValidationWindows(std::vector<TokenRange> ranges, int64_t sequence_length)
    : ranges_(std::move(ranges)), sequence_length_(sequence_length) {}

int64_t ValidationWindows::num_predictions() const {
  int64_t predictions = 0;
  for (const TokenRange& range : ranges_) predictions += NumPredictions(range);
  return predictions;
}

int64_t ValidationWindows::size() const {
  int64_t windows = 0;
  for (const TokenRange& range : ranges_) windows += NumWindows(range, sequence_length_);
  return windows;
}

Batch ValidationWindows::Windows(int64_t begin, int64_t end, int64_t stride) const {
  const int64_t rows = end > begin ? (end - begin + stride - 1) / stride : 0;
  Batch batch = EmptyBatch(rows, sequence_length_);
  std::vector<int64_t> ids;
  auto range = ranges_.begin();
  int64_t windows_before = 0;  // in the ranges before `range`
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t window = begin + row * stride;
    for (; window - windows_before >= NumWindows(*range, sequence_length_); ++range)
      windows_before += NumWindows(*range, sequence_length_);
    const int64_t done = (window - windows_before) * sequence_length_;
    FillRow(*range->file, FirstPredicted(*range) - 1 + done,
            std::min(sequence_length_, NumPredictions(*range) - done), row, &ids, &batch);
    batch.row_ids_B.data_ptr<int64_t>()[row] = window;
  }
  return batch;
}

}  // namespace hypermoe
