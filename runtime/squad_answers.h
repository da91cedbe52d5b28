// Texts compared as SQuAD 1.1's evaluation does.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/utf8_pattern.h"

namespace hypermoe {

class AnswerNormalizer {
 public:
  AnswerNormalizer();
  // The words of `text` in lower case, without ASCII's punctuation and the articles a, an and the.
  // Every step is that of Python's re, str.lower and str.split, in all languages.
  std::vector<std::string> Words(std::string_view text);

 private:
  Utf8Pattern articles_, last_sigma_;
};

// 2PR / (P + R) of words, a word that stands n times in one and m times in the other being common
// min(n, m) times; 0 if none is common, so for two texts without words too.
double WordsF1(std::vector<std::string> answer, std::vector<std::string> reference);

}  // namespace hypermoe
