// Cuts text into the words within which GPT-2 merges byte pairs, by the regular expression of
// OpenAI's encoder.py.
#pragma once

#include <cstddef>
#include <string_view>

#include "runtime/utf8_pattern.h"

namespace hypermoe {

class WordSplitter {
 public:
  WordSplitter();

  // How many bytes of `text` (well-formed UTF-8, not empty) are its first word. If more text may
  // follow and could change that: 0. Every character is in some word.
  size_t FirstWord(std::string_view text, bool more_may_follow);

 private:
  Utf8Pattern words_;
};

}  // namespace hypermoe
