#include "runtime/example_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>
#include <utility>

#include "parallel/progress_marks.h"
#include "runtime/keyed_permutation.h"

namespace hypermoe {
namespace {

// Apart from the streams of dataset.cc.
constexpr uint64_t kExampleStream = 0x6578616D706C65;  // "example"

// Appends the ids of `text` and the end; returns whether it had to be cut.
bool AddText(const std::string& text, const Tokenizer& tokenizer, int64_t longest,
             TokenLists* lists) {
  std::vector<int32_t> ids;
  tokenizer.Encode(text, &ids);
  const auto most = static_cast<size_t>(longest - 1);
  const bool cut = ids.size() > most;
  if (cut) ids.resize(most);
  ids.push_back(tokenizer.end_of_text());
  lists->Add(ids);
  return cut;
}

int64_t SumOfLengths(const TokenLists& lists, absl::Span<const int64_t> texts) {
  int64_t sum = 0;
  for (const int64_t text : texts) sum += lists.length(text);
  return sum;
}

}  // namespace

ExampleTokens TokensOf(absl::Span<const TaskExample> examples, const Tokenizer& tokenizer,
                       const ExampleLengths& longest) {
  ExampleTokens tokens;
  for (const TaskExample& example : examples) {
    if (AddText(example.source, tokenizer, longest.source, &tokens.sources)) ++tokens.cut_sources;
    if (AddText(example.target, tokenizer, longest.target, &tokens.targets)) ++tokens.cut_targets;
    MarkProgress();
  }
  return tokens;
}

ExampleBatches::ExampleBatches(std::shared_ptr<const ExampleTokens> tokens, int64_t pad_id,
                               const ExampleLengths* padded)
    : tokens_(std::move(tokens)),
      pad_id_(pad_id),
      padded_(padded != nullptr ? *padded : ExampleLengths{}) {}

Batch ExampleBatches::Make(absl::Span<const int64_t> pass, const RowRange& mine,
                           absl::Span<const int64_t> row_ids) const {
  const auto own =
      pass.subspan(static_cast<size_t>(mine.begin), static_cast<size_t>(mine.size()));
  const auto length = [&](const TokenLists& lists, int64_t padded) {
    return padded > 0 ? padded : LongestOf(lists, pass);
  };
  PaddedIds inputs =
      PadTexts(tokens_->sources, own, length(tokens_->sources, padded_.source), pad_id_);
  Batch batch;
  batch.input_ids_BS = std::move(inputs.ids_BS);
  batch.attention_mask_BS = std::move(inputs.mask_BS);
  batch.labels_BS =
      PadTexts(tokens_->targets, own, length(tokens_->targets, padded_.target), kIgnoredLabel)
          .ids_BS;
  batch.row_ids_B = at::empty({mine.size()}, at::kLong);
  std::copy(row_ids.begin(), row_ids.end(), batch.row_ids_B.mutable_data_ptr<int64_t>());
  return batch;
}

ExampleRows::ExampleRows(ExampleBatches batches, int64_t batch_size, uint64_t seed)
    : batches_(std::move(batches)), batch_size_(batch_size), seed_(seed) {}

int64_t ExampleRows::ExampleOf(int64_t r) const {
  const int64_t examples = batches_.size();
  const KeyedPermutation order(
      KeyedHash(KeyedHash(seed_, kExampleStream), static_cast<uint64_t>(r / examples)),
      static_cast<uint64_t>(examples));
  return static_cast<int64_t>(order(static_cast<uint64_t>(r % examples)));
}

Batch ExampleRows::Rows(int64_t step, const RowRange& micro_batch, const RowRange& mine) const {
  std::vector<int64_t> pass, row_ids;
  for (int64_t row = micro_batch.begin; row < micro_batch.end; ++row)
    pass.push_back(ExampleOf(step * batch_size_ + row));
  for (int64_t row = mine.begin; row < mine.end; ++row) row_ids.push_back(row);
  return batches_.Make(pass, {mine.begin - micro_batch.begin, mine.end - micro_batch.begin},
                       row_ids);
}

int64_t ExampleRows::NumLabels(int64_t step) const {
  std::vector<int64_t> batch;
  for (int64_t row = 0; row < batch_size_; ++row)
    batch.push_back(ExampleOf(step * batch_size_ + row));
  return SumOfLengths(batches_.tokens().targets, batch);
}

int64_t ExampleRows::NumTokens(int64_t begin, int64_t end) const {
  int64_t tokens = 0;
  for (int64_t r = begin * batch_size_; r < end * batch_size_; ++r)
    tokens += batches_.tokens().sources.length(ExampleOf(r));
  return tokens;
}

Batch ExampleWindows::Rows(const RowRange& pass, const RowRange& mine, int64_t stride) const {
  std::vector<int64_t> numbers;
  for (int64_t i = pass.begin; i < pass.end; ++i) numbers.push_back(i * stride);
  const RowRange own = {mine.begin - pass.begin, mine.end - pass.begin};
  return batches_.Make(numbers, own,
                       absl::MakeConstSpan(numbers).subspan(static_cast<size_t>(own.begin),
                                                            static_cast<size_t>(own.size())));
}

}  // namespace hypermoe
