#include "runtime/word_splitter.h"

#include <stdexcept>

namespace hypermoe {
namespace {

// White_Space is what Python's regex module, which GPT-2's vocabulary was made with, means by \s;
// PCRE2's \s takes U+180E too.
constexpr char kWords[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+)"
    R"(|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";

}  // namespace

WordSplitter::WordSplitter() : words_(kWords, Utf8Pattern::Where::kAtStart) {}

size_t WordSplitter::FirstWord(std::string_view text, bool more_may_follow) {
  const Utf8Pattern::Match match = words_.Find(text, 0, more_may_follow);
  if (match.outcome == Utf8Pattern::Outcome::kNone)
    throw std::runtime_error("a text is not well-formed UTF-8, or has no word");
  return match.end;
}

}  // namespace hypermoe
