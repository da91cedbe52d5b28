// ROUGE (Lin, 2004) as google-research's rouge computes it: words are the runs of a-z and 0-9 of
// the text in lower case, and words of more than three letters may be compared by their stems.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hypermoe {

using RougeWords = std::vector<std::string>;

RougeWords SplitForRouge(std::string_view text, bool stemmer);
// Of each line that is not empty (it may have no words).
std::vector<RougeWords> SplitLinesForRouge(std::string_view text, bool stemmer);

struct RougeScore {
  double precision = 0;  // of what the answer has, the share that the reference has too
  double recall = 0;     // the other way round
  double f = 0;          // 2PR / (P + R), 0 where both are
};

// ROUGE-N: runs of `length` words, counted min(n, m) times as in WordsF1 (squad_answers.h).
RougeScore RougeRuns(const RougeWords& answer, const RougeWords& reference, size_t length);
// ROUGE-L: the longest common subsequence.
RougeScore RougeSubsequence(const RougeWords& answer, const RougeWords& reference);
// ROUGE-Lsum: for each line of the reference, its words that are in its longest common subsequence
// with any line of the answer, each word no more often than it is in either text. Of several
// longest ones it is the one that google-research's rouge finds.
RougeScore RougeLines(const std::vector<RougeWords>& answer,
                      const std::vector<RougeWords>& reference);

}  // namespace hypermoe
