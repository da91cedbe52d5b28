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
constexpr uint64_t kRowStream = 0x726F77;           // "row"

// The first file's keys are those of a run with one file.
uint64_t StreamKey(uint64_t seed, uint64_t stream, int64_t file, int64_t epoch) {
  uint64_t key = KeyedHash(seed, stream);
  if (file > 0) key = KeyedHash(KeyedHash(key, kFileStream), static_cast<uint64_t>(file));
  return KeyedHash(key, static_cast<uint64_t>(epoch));
}

// A batch, row by row. By hand rather than by LibTorch's fills, which for large batches would start
// a second team of OpenMP threads where a thread of its own assembles batches.
class BatchBuilder {
 public:
  BatchBuilder(const RowFormat& format, int64_t rows)
      : format_(format),
        batch_{at::empty({rows, format.sizes().inputs}, at::kLong),
               at::empty({rows, format.sizes().labels}, at::kLong), at::empty({rows}, at::kLong)} {}

  // The window of `size` tokens from token `first` on.
  void Add(const TokenFile& file, int64_t first, int64_t size, uint64_t key, int64_t row_id) {
    const auto row = static_cast<int64_t>(lengths_.size());
    const int64_t overlap = format_.sizes().overlap;
    tokens_.resize(static_cast<size_t>(size + overlap));
    file.Read(first, size + overlap, tokens_.data());
    lengths_.push_back(
        format_.Fill(tokens_, key, RowOf(batch_.input_ids_BS, row), RowOf(batch_.labels_BS, row)));
    batch_.row_ids_B.data_ptr<int64_t>()[row] = row_id;
  }

  // When all rows have been added.
  Batch Finish() {
    const int64_t inputs = format_.sizes().inputs;
    const bool all_full = std::all_of(lengths_.begin(), lengths_.end(),
                                      [&](int64_t length) { return length == inputs; });
    if (format_.sizes().masked && !all_full) {
      batch_.attention_mask_BS = at::empty(batch_.input_ids_BS.sizes(), at::kBool);
      bool* mask = batch_.attention_mask_BS.data_ptr<bool>();
      for (const int64_t length : lengths_) {
        mask = std::fill_n(mask, length, true);
        mask = std::fill_n(mask, inputs - length, false);
      }
    }
    return batch_;
  }

 private:
  static absl::Span<int64_t> RowOf(const at::Tensor& ids, int64_t row) {
    const int64_t length = ids.size(1);
    return {ids.data_ptr<int64_t>() + row * length, static_cast<size_t>(length)};
  }

  const RowFormat& format_;
  Batch batch_;
  std::vector<int64_t> tokens_;
  std::vector<int64_t> lengths_;  // inputs of each row
};

// Where a range's windows begin: with an overlap before the range, where there are tokens, so that
// its first token too is predicted.
int64_t WindowsBegin(const TokenRange& range, const RowFormat::Sizes& sizes) {
  return std::max<int64_t>(0, range.begin - sizes.overlap);
}

// Tokens of a range that are cut into windows.
int64_t WindowTokens(const TokenRange& range, const RowFormat::Sizes& sizes) {
  const int64_t tokens =
      std::max<int64_t>(0, range.end - sizes.overlap - WindowsBegin(range, sizes));
  const int64_t rest = tokens % sizes.stride;
  return rest < sizes.shortest ? tokens - rest : tokens;
}

// Windows of a range.
int64_t NumWindows(const TokenRange& range, const RowFormat::Sizes& sizes) {
  return (WindowTokens(range, sizes) + sizes.stride - 1) / sizes.stride;
}

absl::Status CheckLengths(const Splits& splits, const DataConfig& config, int64_t sequence_length) {
  const int64_t row_tokens = splits.format->sizes().stride + splits.format->sizes().overlap;
  int64_t validation_tokens = 0;
  for (const TokenRange& range : splits.validation) validation_tokens += range.size();
  for (size_t i = 0; i < splits.train.size(); ++i) {
    const int64_t tokens = splits.train[i].tokens.size();
    if (tokens >= row_tokens) continue;
    return DataError(
        absl::StrCat("data.train: ", config.train(static_cast<int>(i)).prefix(), " has ", tokens,
                     " tokens for training, but a row of model.sequence_length=", sequence_length,
                     " needs ", row_tokens, ": give more text, or shorten the sequence"));
  }
  if (ValidationWindows(splits.validation, splits.format).num_predictions() > 0)
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
  ASSIGN_OR_RETURN(splits.format, MakeRowFormat(config, model));
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

TrainingRows::TrainingRows(std::vector<WeightedTokens> files,
                           std::shared_ptr<const RowFormat> format, int64_t batch_size,
                           uint64_t seed)
    : files_(std::move(files)), format_(std::move(format)), batch_size_(batch_size), seed_(seed) {
  std::vector<double> weights;
  for (const WeightedTokens& file : files_) weights.push_back(file.weight);
  schedule_ = std::make_shared<const RowSchedule>(weights);
}

TrainingRows::TrainingRows(std::vector<WeightedTokens> files, int64_t sequence_length,
                           int64_t batch_size, uint64_t seed)
    : TrainingRows(std::move(files), NextTokenRows(sequence_length), batch_size, seed) {}

// Places of a file, its end too, where the overlap that closes a window can begin.
int64_t TrainingRows::Places(int64_t file) const {
  return files_[static_cast<size_t>(file)].tokens.size() - format_->sizes().overlap + 1;
}

// As many as fit whatever the offset, but at least one.
int64_t TrainingRows::WindowsPerEpoch(int64_t file) const {
  return std::max<int64_t>(1, Places(file) / format_->sizes().stride - 1);
}

TrainingRows::Window TrainingRows::WindowOf(int64_t r) const {
  const auto [file, row] = schedule_->At(r);
  const int64_t windows = WindowsPerEpoch(file), stride = format_->sizes().stride;
  const int64_t epoch = row / windows;
  // Offsets that leave room for all windows; every one below the stride unless there is a single
  // window.
  const int64_t offsets = std::min(stride, Places(file) - windows * stride);
  const uint64_t offset =
      KeyedHash(StreamKey(seed_, kOffsetStream, file, epoch), 0) % static_cast<uint64_t>(offsets);
  const KeyedPermutation order(StreamKey(seed_, kOrderStream, file, epoch),
                               static_cast<uint64_t>(windows));
  const auto number = static_cast<int64_t>(order(static_cast<uint64_t>(row % windows)));
  return {file, epoch, number, static_cast<int64_t>(offset) + number * stride};
}

Batch TrainingRows::Rows(int64_t step, int64_t row_begin, int64_t row_end) const {
  BatchBuilder batch(*format_, row_end - row_begin);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const Window window = WindowOf(step * batch_size_ + row);
    const TokenRange& tokens = files_[static_cast<size_t>(window.file)].tokens;
    batch.Add(*tokens.file, tokens.begin + window.first, format_->sizes().stride,
              KeyedHash(StreamKey(seed_, kRowStream, window.file, window.epoch),
                        static_cast<uint64_t>(window.number)),
              row);
  }
  return batch.Finish();
}

RowRange RowsOfMicroBatch(const TrainConfig& train, int64_t micro_batch) {
  return RowsOfRank(train.batch_size(), train.micro_batches(), static_cast<int>(micro_batch));
}

RowRange RowsOfMicroBatch(const TrainConfig& train, int64_t micro_batch, int world_size, int rank,
                          int64_t unit) {
  const RowRange micro = RowsOfMicroBatch(train, micro_batch);
  const RowRange mine = UnitsOfRank(micro.size(), unit, world_size, rank);
  return {micro.begin + mine.begin, micro.begin + mine.end};
}

ValidationWindows::ValidationWindows(std::vector<TokenRange> ranges,
                                     std::shared_ptr<const RowFormat> format)
    : ranges_(std::move(ranges)), format_(std::move(format)) {}

ValidationWindows::ValidationWindows(std::vector<TokenRange> ranges, int64_t sequence_length)
    : ValidationWindows(std::move(ranges), NextTokenRows(sequence_length)) {}

int64_t ValidationWindows::num_predictions() const {
  const RowFormat::Sizes& sizes = format_->sizes();
  int64_t predictions = 0;
  for (const TokenRange& range : ranges_) {
    const int64_t tokens = WindowTokens(range, sizes), rest = tokens % sizes.stride;
    predictions += tokens / sizes.stride * sizes.labels;
    if (rest > 0) predictions += format_->NumLabels(rest);
  }
  return predictions;
}

int64_t ValidationWindows::size() const {
  int64_t windows = 0;
  for (const TokenRange& range : ranges_) windows += NumWindows(range, format_->sizes());
  return windows;
}

Batch ValidationWindows::Windows(int64_t begin, int64_t end, int64_t stride) const {
  const RowFormat::Sizes& sizes = format_->sizes();
  const int64_t rows = end > begin ? (end - begin + stride - 1) / stride : 0;
  BatchBuilder batch(*format_, rows);
  auto range = ranges_.begin();
  int64_t windows_before = 0;  // in the ranges before `range`
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t window = begin + row * stride;
    for (; window - windows_before >= NumWindows(*range, sizes); ++range)
      windows_before += NumWindows(*range, sizes);
    const int64_t done = (window - windows_before) * sizes.stride;
    batch.Add(*range->file, WindowsBegin(*range, sizes) + done,
              std::min(sizes.stride, WindowTokens(*range, sizes) - done),
              KeyedHash(kRowStream, static_cast<uint64_t>(window)), window);
  }
  return batch.Finish();
}

}  // namespace hypermoe
