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
  int64_t batch_size = 32;  // as in TextDecoding
  BeamSearchOptions search;
};

struct GenerateFileResult {
  int64_t texts = 0;
  int64_t tokens = 0;  // of the outputs, the end ids included
  double seconds = 0;
};

// Reads each text followed by the end id, as T5 was trained, and writes one JSON object a line, in
// the order of the texts: input, output, token_ids (after the start token, with the end id) and
// score (beam_search.h). What is decoded together, and where that matters: DecodeTexts. Bytes of an
// output that are not UTF-8 stand as U+FFFD in it. The file gets its name once it is whole.
//
// Collective over `world`; rank 0 writes, and shows progress on `progress` unless it is null. The
// same result on every rank, but for the seconds.
absl::StatusOr<GenerateFileResult> GenerateFile(const GenerateFileOptions& options,
                                                std::shared_ptr<Communicator> world,
                                                int expert_parallel, std::FILE* progress);

}  // namespace hypermoe
