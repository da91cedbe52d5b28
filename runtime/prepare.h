// Text files to a token file: `hypermoe prepare`.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

struct PrepareOptions {
  std::vector<std::string> inputs;  // see text_reader.h for the formats
  std::string tokenizer = "byte";
  std::string output;               // prefix of the token file
  bool end_of_text = true;          // the tokenizer's end-of-text id after each document
  bool skip_bad_text = false;       // skip and count what is malformed, rather than stop
  std::string text_field = "text";  // of JSON lines
};

struct PrepareResult {
  int64_t documents = 0;
  int64_t tokens = 0;   // end-of-text ids included
  int64_t skipped = 0;  // documents of JSON lines, lines of plain text
};

// Reads the inputs in order and writes options.output.bin and .idx. Documents are kept apart, and
// the tokenizer's end-of-text id follows each of them, the last too (Megatron's --append-eod);
// without options.end_of_text rows run from one document into the next unmarked, as T5's do. Memory
// stays flat. Shows progress on `progress` unless it is null. On an error, or if the process is
// killed, the output's names are as they were before.
absl::StatusOr<PrepareResult> Prepare(const PrepareOptions& options, std::FILE* progress);

}  // namespace hypermoe
