#include "runtime/text_decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/expert_capacity.h"
#include "parallel/partition.h"
#include "runtime/agreement.h"
#include "runtime/model_logits.h"

namespace hypermoe {
namespace {

// Whether an expert's room depends on how far a row is filled up: where it is a share of all
// tokens, and where second choices come after the first ones of what fills it up.
bool FillingMatters(const ModelConfig& model) {
  const CapacityConfig::Mode mode = model.evaluation_capacity().mode();
  return model.kind() != ModelConfig::dense &&
         (mode == CapacityConfig::factor_per_group ||
          (mode == CapacityConfig::fixed_per_row && model.top_k() > 1));
}

class Decoder {
 public:
  Decoder(LanguageModel& model, const ModelConfig& config, const Tokenizer& tokenizer,
          const TokenLists& sources, const TextDecoding& decoding, Communicator& world)
      : model_(model),
        config_(config),
        tokenizer_(tokenizer),
        sources_(sources),
        decoding_(decoding),
        world_(world),
        search_(decoding.search),
        order_(static_cast<size_t>(sources.size())) {
    search_.end_id = config.end_id();
    search_.known_ids = tokenizer.vocab_size();
    std::iota(order_.begin(), order_.end(), int64_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int64_t a, int64_t b) { return sources.length(a) > sources.length(b); });
  }

  absl::StatusOr<std::optional<std::vector<std::string>>> Decode();

 private:
  Batch BatchOf(absl::Span<const int64_t> texts) const;
  // A line and its newline for each.
  absl::StatusOr<std::string> DecodeRows(absl::Span<const int64_t> texts);
  absl::StatusOr<DecodedText> TextOf(const DecodedRow& row) const;

  LanguageModel& model_;
  const ModelConfig& config_;
  const Tokenizer& tokenizer_;
  const TokenLists& sources_;
  const TextDecoding& decoding_;
  Communicator& world_;
  BeamSearchOptions search_;
  std::vector<int64_t> order_;  // of decoding
};

Batch Decoder::BatchOf(absl::Span<const int64_t> texts) const {
  const int64_t length = FillingMatters(config_) ? sources_.length(order_.front())
                                                 : LongestOf(sources_, texts);
  PaddedIds inputs = PadTexts(sources_, texts, length, config_.pad_id());
  Batch batch;
  batch.input_ids_BS = std::move(inputs.ids_BS);
  batch.attention_mask_BS = std::move(inputs.mask_BS);
  batch.row_ids_B = at::empty({static_cast<int64_t>(texts.size())}, at::kLong);
  std::copy(texts.begin(), texts.end(), batch.row_ids_B.mutable_data_ptr<int64_t>());
  return batch;
}

absl::StatusOr<DecodedText> Decoder::TextOf(const DecodedRow& row) const {
  DecodedText decoded;
  decoded.token_ids.assign(row.ids.begin() + 1, row.ids.end());
  decoded.score = row.score;
  absl::Span<const int64_t> ids = decoded.token_ids;
  if (!ids.empty() && ids.back() == search_.end_id) ids.remove_suffix(1);
  ASSIGN_OR_RETURN(decoded.text, tokenizer_.Decode(ids));
  return decoded;
}

absl::StatusOr<std::string> Decoder::DecodeRows(absl::Span<const int64_t> texts) {
  const at::Tensor starts =
      at::full({static_cast<int64_t>(texts.size()), 1}, config_.decoder_start_id(), at::kLong);
  ModelLogits logits(model_, BatchOf(texts), /*encoder=*/true, /*cached=*/true);
  ASSIGN_OR_RETURN(const std::vector<DecodedRow> rows,
                   BeamSearch(search_, starts, std::ref(logits), world_));
  std::string lines;
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSIGN_OR_RETURN(const DecodedText decoded, TextOf(rows[i]));
    absl::StrAppend(&lines, decoding_.line(texts[i], decoded), "\n");
  }
  return lines;
}

absl::StatusOr<std::optional<std::vector<std::string>>> Decoder::Decode() {
  const at::NoGradGuard no_grad;
  const int64_t unit = CapacityGroupRows(config_.evaluation_capacity());
  std::vector<std::string> lines(world_.rank() == 0 ? order_.size() : 0);
  for (size_t done = 0; done < order_.size();) {
    if (decoding_.stop && AnyRank(world_, decoding_.stop())) return std::nullopt;
    const auto batch =
        absl::MakeConstSpan(order_).subspan(done, static_cast<size_t>(decoding_.batch_size));
    const RowRange mine =
        UnitsOfRank(static_cast<int64_t>(batch.size()), unit, world_.size(), world_.rank());
    const absl::StatusOr<std::string> decoded = DecodeRows(
        batch.subspan(static_cast<size_t>(mine.begin), static_cast<size_t>(mine.size())));
    RETURN_IF_ERROR(Agree(world_, decoded.status()));
    // The rows of rank 0, then those of rank 1, and so on: as they stand in the batch.
    const std::string all = absl::StrJoin(world_.AllGatherText(*decoded), "");
    if (world_.rank() == 0) {
      size_t next = done;
      for (const auto line : absl::StrSplit(all, '\n', absl::SkipEmpty()))
        lines[static_cast<size_t>(order_[next++])] = std::string(line);
    }
    done += batch.size();
    if (decoding_.progress) decoding_.progress(static_cast<int64_t>(done));
  }
  return lines;
}

}  // namespace

absl::StatusOr<std::optional<std::vector<std::string>>> DecodeTexts(
    LanguageModel& model, const ModelConfig& config, const Tokenizer& tokenizer,
    const TokenLists& sources, const TextDecoding& decoding, Communicator& world) {
  return Decoder(model, config, tokenizer, sources, decoding, world).Decode();
}

absl::Status CheckEndId(const Tokenizer& tokenizer, const RunConfig& config) {
  if (tokenizer.end_of_text() == config.model().end_id()) return absl::OkStatus();
  return ConfigError(absl::StrCat(
      "the model ends texts with id ", config.model().end_id(), ", but its tokenizer ",
      config.data().tokenizer(), " with id ", tokenizer.end_of_text(),
      ": it was trained with another one; put its spiece.model into the model folder"));
}

}  // namespace hypermoe
