// The outputs of an encoder-decoder model for all texts of a file.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "parallel/communicator.h"
#include "runtime/beam_search.h"
#include "runtime/status.h"

namespace hypermoe {

struct GenerateFileOptions {
  std::string checkpoint;   // run folder, checkpoint folder or model folder
  std::string dtype;        // "" as trained
  std::string input;        // input_texts.h
  std::string output;       // .jsonl
  int64_t batch_size = 32;  // texts at a time, over all ranks
  // end_id and known_ids are taken from the model and its tokenizer: an id that could not be turned
  // into text is never chosen. Lengths count the start token.
  BeamSearchOptions search;
};

struct GenerateFileResult {
  int64_t texts = 0;
  int64_t tokens = 0;  // of the outputs, the end ids included
  double seconds = 0;
};

// Reads each text followed by the end id, as T5 was trained, and writes one JSON object a line, in
// the order of the texts: input, output, token_ids (after the start token, with the end id) and
// score (beam_search.h). Texts of similar length are decoded together; where capacity groups have
// more than one row (CapacityConfig), so their results depend on batch_size. Bytes of an output
// that are not UTF-8 stand as U+FFFD in it. The file gets its name once it is whole.
//
// Collective over `world`, in which experts stay sharded and the texts of a batch are cut over the
// ranks; rank 0 writes, and shows progress on `progress` unless it is null. The same result on
// every rank, but for the seconds.
absl::StatusOr<GenerateFileResult> GenerateFile(const GenerateFileOptions& options,
                                                std::shared_ptr<Communicator> world,
                                                int expert_parallel, std::FILE* progress);

}  // namespace hypermoe
