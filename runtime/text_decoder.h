// The outputs of an encoder-decoder model for many texts, worked on in batches over all ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "parallel/communicator.h"
#include "runtime/beam_search.h"
#include "runtime/status.h"
#include "runtime/token_lists.h"
#include "runtime/tokenizer.h"

namespace hypermoe {

// An output as text, and what it was made of.
struct DecodedText {
  std::string text;                // without the end
  std::vector<int64_t> token_ids;  // after the start token, with the end id
  double score = 0;                // beam_search.h
};

struct TextDecoding {
  int64_t batch_size = 32;  // texts at a time, over all ranks
  // end_id and known_ids are taken from the model and its tokenizer: an id that could not be turned
  // into text is never chosen. Lengths count the start token.
  BeamSearchOptions search;
  // What is kept of the output of a text: one line, without its newline.
  std::function<std::string(int64_t text, const DecodedText& output)> line;
  // Called on every rank after each batch with the texts that are done; empty: nobody.
  std::function<void(int64_t done)> progress;
  // Asked on every rank before each batch: true on any rank ends it all. Empty, on all ranks: not
  // asked.
  std::function<bool()> stop;
};

// Decodes `sources`, what the encoder reads of each text with its end id. Texts of similar length
// are decoded together, the longest first, so that what does not fit into memory is known at once;
// what fills them up to the longest changes nothing but rounding. (An encoder whose capacity does
// depend on a row's length gets all rows as long as the longest of all texts.) Where capacity
// groups have more than one row, results depend on the batch size.
//
// Returns on rank 0 the lines in the order of the texts, elsewhere none of them; nothing if
// stopped. Collective over `world`, in which experts stay sharded and the texts of a batch are cut
// over the ranks.
absl::StatusOr<std::optional<std::vector<std::string>>> DecodeTexts(
    LanguageModel& model, const ModelConfig& config, const Tokenizer& tokenizer,
    const TokenLists& sources, const TextDecoding& decoding, Communicator& world);

// ConfigError unless the tokenizer of data.tokenizer ends texts as the model does.
absl::Status CheckEndId(const Tokenizer& tokenizer, const RunConfig& config);

}  // namespace hypermoe
