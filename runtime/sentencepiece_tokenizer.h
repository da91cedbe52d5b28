// SentencePiece tokenizers, as T5 and Switch Transformers use them.
#pragma once

#include <memory>
#include <string>

#include "runtime/status.h"
#include "runtime/tokenizer.h"

namespace hypermoe {

// The tokenizer of the model file `path` (sentencepiece_file.h has the checks). Its ids are those
// of spm_encode, without special pieces; the sentinels, which stand in no file, follow the pieces
// downwards: <extra_id_0> is the last id, vocab_size() - 1. end_of_text is the piece </s>; a model
// without one is DataError. Special pieces written out in a text are characters like others.
//
// Decode gives the normalised text of spm_decode; sentinels stand in it by name, between spaces.
//
// An encoder holds text until it can be cut, at a space between two ASCII letters or digits, or if
// pieces may reach over spaces, until its end.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(const std::string& path);

}  // namespace hypermoe
