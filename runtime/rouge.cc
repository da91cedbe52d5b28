#include "runtime/rouge.h"

#include <algorithm>
#include <unordered_map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "runtime/lower_case.h"
#include "runtime/porter_stemmer.h"

namespace hypermoe {
namespace {

constexpr size_t kLongestUnstemmed = 3;

RougeScore ScoreOf(int64_t hits, size_t answer, size_t reference) {
  RougeScore score;
  score.precision = static_cast<double>(hits) / static_cast<double>(std::max<size_t>(answer, 1));
  score.recall = static_cast<double>(hits) / static_cast<double>(std::max<size_t>(reference, 1));
  if (hits > 0) score.f = 2 * score.precision * score.recall / (score.precision + score.recall);
  return score;
}

// How often each run of `length` words is there; the words of a run are joined by spaces, which no
// word has.
std::unordered_map<std::string, int64_t> CountRuns(const RougeWords& words, size_t length) {
  std::unordered_map<std::string, int64_t> counts;
  for (size_t begin = 0; begin + length <= words.size(); ++begin) {
    std::string run = words[begin];
    for (size_t i = 1; i < length; ++i) run.append(" ").append(words[begin + i]);
    ++counts[run];
  }
  return counts;
}

size_t RunsIn(const RougeWords& words, size_t length) {
  return words.size() < length ? 0 : words.size() - length + 1;
}

// Lengths of the longest common subsequences of all pairs of beginnings.
class CommonLengths {
 public:
  CommonLengths(const RougeWords& a, const RougeWords& b)
      : columns_(b.size() + 1), lengths_((a.size() + 1) * columns_) {
    for (size_t i = 1; i <= a.size(); ++i) {
      for (size_t j = 1; j <= b.size(); ++j) {
        At(i, j) =
            a[i - 1] == b[j - 1] ? At(i - 1, j - 1) + 1 : std::max(At(i - 1, j), At(i, j - 1));
      }
    }
  }
  int32_t operator()(size_t i, size_t j) const { return lengths_[i * columns_ + j]; }

 private:
  int32_t& At(size_t i, size_t j) { return lengths_[i * columns_ + j]; }

  size_t columns_;
  std::vector<int32_t> lengths_;
};

// Sets used[i] for the words of `reference` in the common subsequence, found from the end.
void MarkCommon(const RougeWords& reference, const RougeWords& answer, std::vector<char>* used) {
  const CommonLengths lengths(reference, answer);
  size_t i = reference.size(), j = answer.size();
  while (i > 0 && j > 0) {
    if (reference[i - 1] == answer[j - 1]) {
      (*used)[--i] = 1;
      --j;
    } else if (lengths(i, j - 1) > lengths(i - 1, j)) {
      --j;
    } else {
      --i;
    }
  }
}

std::unordered_map<std::string, int64_t> CountWords(const std::vector<RougeWords>& lines) {
  std::unordered_map<std::string, int64_t> counts;
  for (const RougeWords& line : lines) {
    for (const std::string& word : line) ++counts[word];
  }
  return counts;
}

size_t WordsIn(const std::vector<RougeWords>& lines) {
  size_t words = 0;
  for (const RougeWords& line : lines) words += line.size();
  return words;
}

}  // namespace

RougeWords SplitForRouge(std::string_view text, bool stemmer) {
  RougeWords words;
  bool in_word = false;
  for (const char letter : LowerCase(text)) {
    const bool of_word = absl::ascii_isalnum(static_cast<unsigned char>(letter));
    if (of_word && !in_word) words.emplace_back();
    if (of_word) words.back().push_back(letter);
    in_word = of_word;
  }
  if (!stemmer) return words;
  for (std::string& word : words) {
    if (word.size() > kLongestUnstemmed) word = PorterStem(word);
  }
  return words;
}

std::vector<RougeWords> SplitLinesForRouge(std::string_view text, bool stemmer) {
  std::vector<RougeWords> lines;
  for (const auto line :
       absl::StrSplit(absl::string_view(text.data(), text.size()), '\n', absl::SkipEmpty()))
    lines.push_back(SplitForRouge({line.data(), line.size()}, stemmer));
  return lines;
}

RougeScore RougeRuns(const RougeWords& answer, const RougeWords& reference, size_t length) {
  const auto wanted = CountRuns(reference, length);
  int64_t hits = 0;
  for (const auto& [run, count] : CountRuns(answer, length)) {
    const auto found = wanted.find(run);
    if (found != wanted.end()) hits += std::min(count, found->second);
  }
  return ScoreOf(hits, RunsIn(answer, length), RunsIn(reference, length));
}

RougeScore RougeSubsequence(const RougeWords& answer, const RougeWords& reference) {
  const CommonLengths lengths(reference, answer);
  return ScoreOf(lengths(reference.size(), answer.size()), answer.size(), reference.size());
}

RougeScore RougeLines(const std::vector<RougeWords>& answer,
                      const std::vector<RougeWords>& reference) {
  auto left_in_answer = CountWords(answer), left_in_reference = CountWords(reference);
  int64_t hits = 0;
  for (const RougeWords& line : reference) {
    std::vector<char> used(line.size(), 0);
    for (const RougeWords& other : answer) MarkCommon(line, other, &used);
    for (size_t i = 0; i < line.size(); ++i) {
      if (used[i] == 0) continue;
      int64_t& here = left_in_answer[line[i]];
      int64_t& there = left_in_reference[line[i]];
      if (here == 0 || there == 0) continue;
      --here;
      --there;
      ++hits;
    }
  }
  return ScoreOf(hits, WordsIn(answer), WordsIn(reference));
}

}  // namespace hypermoe
