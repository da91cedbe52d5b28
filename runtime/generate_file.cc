#include "runtime/generate_file.h"

#include <ATen/ops/from_blob.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/config_values.h"
#include "runtime/agreement.h"
#include "runtime/file_util.h"
#include "runtime/input_texts.h"
#include "runtime/loaded_model.h"
#include "runtime/pending_file.h"
#include "runtime/rate_progress.h"
#include "runtime/text_decoder.h"
#include "runtime/token_lists.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

struct Inputs {
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<std::string> texts;
  TokenLists ids;  // what the encoder reads of each
};

absl::StatusOr<Inputs> ReadInputs(const std::string& path, const RunConfig& config) {
  Inputs inputs;
  ASSIGN_OR_RETURN(inputs.tokenizer, TokenizerOf(config));
  RETURN_IF_ERROR(CheckEndId(*inputs.tokenizer, config));
  ASSIGN_OR_RETURN(inputs.texts, ReadTexts(path));
  for (const std::string& text : inputs.texts) {
    std::vector<int32_t> ids;
    inputs.tokenizer->Encode(text, &ids);
    ids.push_back(config.model().end_id());
    inputs.ids.Add(ids);
  }
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

std::string LineOf(const std::string& input, const DecodedText& output) {
  const nlohmann::ordered_json line = {{"input", input},
                                       {"output", output.text},
                                       {"token_ids", output.token_ids},
                                       {"score", output.score}};
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
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

  GenerateFileResult result;
  RateProgress rate(world->rank() == 0 ? progress : nullptr, "generate",
                    static_cast<int64_t>(inputs->texts.size()), {"texts"});
  TextDecoding decoding;
  decoding.batch_size = options.batch_size;
  decoding.search = options.search;
  decoding.line = [&](int64_t text, const DecodedText& decoded) {
    result.tokens += static_cast<int64_t>(decoded.token_ids.size());
    return LineOf(inputs->texts[static_cast<size_t>(text)], decoded);
  };
  decoding.progress = [&](int64_t done) { rate.Update(done); };
  ASSIGN_OR_RETURN(const auto lines,
                   DecodeTexts(*loaded.model, loaded.info.config.model(), *inputs->tokenizer,
                               inputs->ids, decoding, *world));
  result.texts = static_cast<int64_t>(inputs->texts.size());
  result.seconds = rate.seconds();
  world->AllReduceSum(at::from_blob(&result.tokens, {1}, at::kLong));
  RETURN_IF_ERROR(Agree(*world, output ? WriteLines(*lines, output.get()) : absl::OkStatus()));
  return result;
}

}  // namespace hypermoe
