#include "runtime/generate_file.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "model/config_values.h"
#include "model/expert_capacity.h"
#include "parallel/partition.h"
#include "runtime/agreement.h"
#include "runtime/file_util.h"
#include "runtime/input_texts.h"
#include "runtime/loaded_model.h"
#include "runtime/model_logits.h"
#include "runtime/pending_file.h"
#include "runtime/rate_progress.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

struct Inputs {
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<std::string> texts;
  std::vector<std::vector<int64_t>> ids;  // what the encoder reads of each
  std::vector<size_t> order;              // of decoding
};

// The longest come first, so that what does not fit into memory is known at once.
absl::StatusOr<Inputs> ReadInputs(const std::string& path, const RunConfig& config) {
  Inputs inputs;
  ASSIGN_OR_RETURN(inputs.tokenizer, TokenizerOf(config));
  if (inputs.tokenizer->end_of_text() != config.model().end_id()) {
    return ConfigError(absl::StrCat(
        "the model ends texts with id ", config.model().end_id(), ", but its tokenizer ",
        config.data().tokenizer(), " with id ", inputs.tokenizer->end_of_text(),
        ": it was trained with another one; put its spiece.model into the model folder"));
  }
  ASSIGN_OR_RETURN(inputs.texts, ReadTexts(path));
  for (const std::string& text : inputs.texts) {
    std::vector<int32_t> ids;
    inputs.tokenizer->Encode(text, &ids);
    inputs.ids.emplace_back(ids.begin(), ids.end()).push_back(config.model().end_id());
  }
  inputs.order.resize(inputs.texts.size());
  std::iota(inputs.order.begin(), inputs.order.end(), 0);
  std::stable_sort(inputs.order.begin(), inputs.order.end(),
                   [&](size_t a, size_t b) { return inputs.ids[a].size() > inputs.ids[b].size(); });
  return inputs;
}

// Ranks on several machines may each have a file of that name.
absl::Status CheckSameTexts(const Inputs& inputs, const std::string& path, Communicator& world) {
  const std::string all = absl::StrJoin(inputs.texts, "\n");
  const std::vector<std::string> digests =
      world.AllGatherText(DigestOf(all.data(), all.size()).xxh3_128);
  for (size_t rank = 1; rank < digests.size(); ++rank) {
    if (digests[rank] == digests[0]) continue;
    return DataError(absl::StrCat(Printable(path), " has other texts on rank ", rank,
                                  " than on rank 0: give a file that all machines share"));
  }
  return absl::OkStatus();
}

Batch BatchOf(const Inputs& inputs, absl::Span<const size_t> rows, int64_t pad_id) {
  const auto count = static_cast<int64_t>(rows.size());
  size_t longest = 1;
  for (const size_t row : rows) longest = std::max(longest, inputs.ids[row].size());
  const auto length = static_cast<int64_t>(longest);
  Batch batch;
  batch.input_ids_BS = at::full({count, length}, pad_id, at::kLong);
  batch.attention_mask_BS = at::zeros({count, length}, at::kBool);
  batch.row_ids_B = at::empty({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    const size_t row = rows[static_cast<size_t>(i)];
    const std::vector<int64_t>& ids = inputs.ids[row];
    std::copy(ids.begin(), ids.end(), batch.input_ids_BS.mutable_data_ptr<int64_t>() + i * length);
    batch.attention_mask_BS[i].narrow(0, 0, static_cast<int64_t>(ids.size())).fill_(true);
    batch.row_ids_B.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(row);
  }
  return batch;
}

class FileDecoder {
 public:
  FileDecoder(LoadedModel& loaded, const Inputs& inputs, const GenerateFileOptions& options)
      : loaded_(loaded),
        model_(loaded.info.config.model()),
        inputs_(inputs),
        options_(options),
        search_(options.search) {
    search_.end_id = model_.end_id();
    search_.known_ids = inputs.tokenizer->vocab_size();
  }

  // Lines of the output, in the order of the texts; on rank 0 alone.
  absl::StatusOr<std::vector<std::string>> Decode(RateProgress* progress);
  int64_t tokens() const { return tokens_; }  // of this rank's rows

 private:
  // One line a row.
  absl::StatusOr<std::string> DecodeRows(absl::Span<const size_t> rows);
  absl::StatusOr<std::string> LineOf(size_t row, const DecodedRow& decoded);

  LoadedModel& loaded_;
  const ModelConfig& model_;
  const Inputs& inputs_;
  const GenerateFileOptions& options_;
  BeamSearchOptions search_;
  int64_t tokens_ = 0;
};

absl::StatusOr<std::string> FileDecoder::LineOf(size_t row, const DecodedRow& decoded) {
  const std::vector<int64_t> ids(decoded.ids.begin() + 1, decoded.ids.end());
  tokens_ += static_cast<int64_t>(ids.size());
  const bool ended = !ids.empty() && ids.back() == search_.end_id;
  ASSIGN_OR_RETURN(const std::string text, inputs_.tokenizer->Decode(absl::MakeSpan(ids).subspan(
                                               0, ids.size() - (ended ? 1 : 0))));
  const nlohmann::ordered_json line = {{"input", inputs_.texts[row]},
                                       {"output", text},
                                       {"token_ids", ids},
                                       {"score", decoded.score}};
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::string> FileDecoder::DecodeRows(absl::Span<const size_t> rows) {
  const at::Tensor starts =
      at::full({static_cast<int64_t>(rows.size()), 1}, model_.decoder_start_id(), at::kLong);
  ModelLogits logits(*loaded_.model, BatchOf(inputs_, rows, model_.pad_id()), /*encoder=*/true,
                     /*cached=*/true);
  ASSIGN_OR_RETURN(const std::vector<DecodedRow> decoded,
                   BeamSearch(search_, starts, std::ref(logits), *loaded_.mesh.world));
  std::string lines;
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSIGN_OR_RETURN(const std::string line, LineOf(rows[i], decoded[i]));
    lines += line;
  }
  return lines;
}

absl::StatusOr<std::vector<std::string>> FileDecoder::Decode(RateProgress* progress) {
  const at::NoGradGuard no_grad;
  Communicator& world = *loaded_.mesh.world;
  const size_t total = inputs_.order.size();
  std::vector<std::string> lines(world.rank() == 0 ? total : 0);
  for (size_t done = 0; done < total;) {
    const auto batch =
        absl::MakeSpan(inputs_.order).subspan(done, static_cast<size_t>(options_.batch_size));
    const RowRange mine =
        UnitsOfRank(static_cast<int64_t>(batch.size()),
                    CapacityGroupRows(model_.evaluation_capacity()), world.size(), world.rank());
    const absl::StatusOr<std::string> decoded = DecodeRows(
        batch.subspan(static_cast<size_t>(mine.begin), static_cast<size_t>(mine.size())));
    RETURN_IF_ERROR(Agree(world, decoded.status()));
    // The rows of rank 0, then those of rank 1, and so on: as they stand in the batch.
    const std::string all = absl::StrJoin(world.AllGatherText(*decoded), "");
    if (world.rank() == 0) {
      size_t next = done;
      for (const auto line : absl::StrSplit(all, '\n', absl::SkipEmpty()))
        lines[inputs_.order[next++]] = std::string(line);
    }
    done += batch.size();
    progress->Update(static_cast<int64_t>(done));
  }
  return lines;
}

absl::Status WriteLines(const std::vector<std::string>& lines, PendingFile& file) {
  for (const std::string& line : lines) {
    RETURN_IF_ERROR(file.Append(line.data(), line.size()));
    RETURN_IF_ERROR(file.Append("\n", 1));
  }
  RETURN_IF_ERROR(file.Sync());
  RETURN_IF_ERROR(file.Publish());
  return SyncFolder(ParentFolder(file.path()));
}

}  // namespace

absl::StatusOr<GenerateFileResult> GenerateFile(const GenerateFileOptions& options,
                                                std::shared_ptr<Communicator> world,
                                                int expert_parallel, std::FILE* progress) {
  ASSIGN_OR_RETURN(LoadedModel loaded,
                   LoadModel(options.checkpoint, options.dtype, world, expert_parallel));
  if (!HasEncoder(loaded.info.config.model())) {
    return UsageError(options.checkpoint +
                      " has no encoder that could read the texts of a file: give --prompt in place "
                      "of --input, --output and their options");
  }
  // Each rank reads the files: one that cannot must not leave the others decoding.
  const absl::StatusOr<Inputs> inputs = ReadInputs(options.input, loaded.info.config);
  RETURN_IF_ERROR(Agree(*world, inputs.status()));
  RETURN_IF_ERROR(CheckSameTexts(*inputs, options.input, *world));
  std::unique_ptr<PendingFile> output;
  absl::Status status;
  if (world->rank() == 0) {
    absl::StatusOr<std::unique_ptr<PendingFile>> created = PendingFile::Create(options.output);
    status = created.status();
    if (created.ok()) output = *std::move(created);
  }
  RETURN_IF_ERROR(Agree(*world, status));

  FileDecoder decoder(loaded, *inputs, options);
  RateProgress rate(world->rank() == 0 ? progress : nullptr, "generate",
                    static_cast<int64_t>(inputs->texts.size()), {"texts"});
  ASSIGN_OR_RETURN(const std::vector<std::string> lines, decoder.Decode(&rate));
  GenerateFileResult result;
  result.texts = static_cast<int64_t>(inputs->texts.size());
  result.seconds = rate.seconds();
  result.tokens = decoder.tokens();
  world->AllReduceSum(at::from_blob(&result.tokens, {1}, at::kLong));
  RETURN_IF_ERROR(Agree(*world, output ? WriteLines(lines, *output) : absl::OkStatus()));
  return result;
}

}  // namespace hypermoe
