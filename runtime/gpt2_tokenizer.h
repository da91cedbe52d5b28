// GPT-2's byte-level byte-pair tokenizer.
#pragma once

#include <memory>
#include <string>

#include "runtime/status.h"
#include "runtime/tokenizer.h"

namespace hypermoe {

// The tokenizer of the files in `folder` (see gpt2_vocabulary.h for them and for the errors). Its
// ids are those of OpenAI's encoder.py. end_of_text is the id of <|endoftext|>; those characters in
// a text are characters like others (7 ids of GPT-2), not an end of text as in Hugging Face's
// tokenizers, so that no document can contain one. A byte of ill-formed UTF-8 is a word of its own,
// so every text decodes to itself. An encoder holds what is not yet a whole word; merging a long
// word takes up to 100 bytes of memory for each of its own.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGpt2Tokenizer(const std::string& folder);

}  // namespace hypermoe
