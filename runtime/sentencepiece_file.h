// A SentencePiece model file (.model), read and checked before its library sees it.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "runtime/status.h"

namespace hypermoe {

struct SentencePieceFile {
  std::string content;  // the whole file
  // Whether a text can be encoded word by word: no piece reaches over a space, and the spaces
  // around a word only say that it begins there.
  bool words_are_independent = false;
};

// The library (0.1.97) crashes on some files that it accepts. So: at most 64 MiB, 2^21 pieces and
// 4 KiB a piece; a well-formed message with pieces of UTF-8 text, none empty or there twice, finite
// scores, exactly one unknown piece; and a table of normalisations (precompiled_charsmap) none of
// whose links leaves it. Anything else is DataError that names file and place; a file that cannot
// be read is IoError.
absl::StatusOr<SentencePieceFile> ReadSentencePieceFile(const std::string& path);

// What is wrong with a table of normalisations, "" if nothing: a trie in the form of Darts-clone
// and the texts that it leads to.
std::string CharsmapProblem(absl::string_view charsmap);

}  // namespace hypermoe
