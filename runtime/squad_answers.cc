#include "runtime/squad_answers.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "runtime/lower_case.h"

namespace hypermoe {
namespace {

constexpr char kArticles[] = R"(\b(a|an|the)\b)";
// The rule by which a capital sigma becomes the one at the end of words (Unicode 3.13,
// Final_Sigma).
constexpr char kLastSigma[] =
    R"((?!\p{Case_Ignorable})\p{Cased}\p{Case_Ignorable}*+\K\x{3A3}(?!\p{Case_Ignorable}*+\p{Cased}))";
constexpr char kCapitalSigma[] = "\xCE\xA3", kSmallLastSigma[] = "\xCF\x82";

// What Python's str.split takes for white space, beyond ASCII.
constexpr std::string_view kSpaces[] = {
    "\xC2\x85",      // next line
    "\xC2\xA0",      // no-break space
    "\xE1\x9A\x80",  // ogham space
    "\xE2\x80\x80", "\xE2\x80\x81", "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85",
    "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A",  // of a width
    "\xE2\x80\xA8", "\xE2\x80\xA9",  // line, paragraph separator
    "\xE2\x80\xAF",                  // narrow no-break space
    "\xE2\x81\x9F",                  // mathematical space
    "\xE3\x80\x80"};                 // ideographic space

bool IsAsciiSpace(unsigned char byte) {
  return byte == ' ' || (byte >= 0x09 && byte <= 0x0D) || (byte >= 0x1C && byte <= 0x1F);
}

// Bytes of the white space that `text` begins with; 0 if it is none.
size_t SpaceBytes(std::string_view text) {
  if (IsAsciiSpace(static_cast<unsigned char>(text[0]))) return 1;
  if (static_cast<unsigned char>(text[0]) < 0x80) return 0;
  for (const std::string_view space : kSpaces) {
    if (text.substr(0, space.size()) == space) return space.size();
  }
  return 0;
}

std::vector<std::string> SplitAtSpaces(std::string_view text) {
  std::vector<std::string> words;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const size_t space = SpaceBytes(text.substr(at));
    if (space == 0) {
      if (!in_word) words.emplace_back();
      words.back().push_back(text[at]);
    }
    in_word = space == 0;
    at += std::max<size_t>(space, 1);
  }
  return words;
}

// `text` with every match of `pattern` replaced.
std::string ReplaceAll(const std::string& text, std::string_view replacement,
                       Utf8Pattern* pattern) {
  std::string result;
  size_t done = 0;
  while (done < text.size()) {
    const Utf8Pattern::Match match = pattern->Find(text, done);
    if (match.outcome != Utf8Pattern::Outcome::kFound) break;
    result.append(text, done, match.begin - done).append(replacement);
    done = match.end;
  }
  return result.append(text, done, std::string::npos);
}

}  // namespace

AnswerNormalizer::AnswerNormalizer()
    : articles_(kArticles, Utf8Pattern::Where::kAnywhere),
      last_sigma_(kLastSigma, Utf8Pattern::Where::kAnywhere) {}

std::vector<std::string> AnswerNormalizer::Words(std::string_view text) {
  std::string words(text);
  if (words.find(kCapitalSigma) != std::string::npos)
    words = ReplaceAll(words, kSmallLastSigma, &last_sigma_);
  words = LowerCase(words);
  words.erase(std::remove_if(
                  words.begin(), words.end(),
                  [](char byte) { return absl::ascii_ispunct(static_cast<unsigned char>(byte)); }),
              words.end());
  return SplitAtSpaces(ReplaceAll(words, " ", &articles_));
}

double WordsF1(std::vector<std::string> answer, std::vector<std::string> reference) {
  std::sort(answer.begin(), answer.end());
  std::sort(reference.begin(), reference.end());
  std::vector<std::string> common;
  std::set_intersection(answer.begin(), answer.end(), reference.begin(), reference.end(),
                        std::back_inserter(common));
  if (common.empty()) return 0;
  const auto hits = static_cast<double>(common.size());
  const double precision = hits / static_cast<double>(answer.size());
  const double recall = hits / static_cast<double>(reference.size());
  return 2 * precision * recall / (precision + recall);
}

}  // namespace hypermoe
