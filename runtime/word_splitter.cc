#include "runtime/word_splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <new>
#include <stdexcept>
#include <string>

namespace hypermoe {
namespace {

static_assert(PCRE2_MAJOR > 10 || (PCRE2_MAJOR == 10 && PCRE2_MINOR >= 40),
              "\\p{White_Space} needs PCRE2 10.40 or newer");

// White_Space is what Python's regex module, which GPT-2's vocabulary was made with, means by \s;
// PCRE2's \s takes U+180E too.
constexpr char kWords[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+)"
    R"(|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";

// Only out of memory and defects of this program get here.
[[noreturn]] void Fail(const char* action, int code) {
  if (code == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
  std::array<unsigned char, 256> message{};
  pcre2_get_error_message(code, message.data(), message.size());
  throw std::runtime_error(std::string("PCRE2 could not ") + action + ": " +
                           reinterpret_cast<const char*>(message.data()));
}

struct Deleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

struct WordSplitter::Pattern {
  std::unique_ptr<pcre2_code, Deleter> code;
  std::unique_ptr<pcre2_match_data, Deleter> match;
};

WordSplitter::WordSplitter() : pattern_(std::make_unique<Pattern>()) {
  int error = 0;
  size_t offset = 0;
  pattern_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kWords), PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset,
                                     nullptr));
  if (pattern_->code == nullptr) Fail("compile GPT-2's word pattern", error);
  // Where there is no JIT compiler, pcre2_match interprets the pattern: slower, with equal results.
  pcre2_jit_compile(pattern_->code.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  pattern_->match.reset(pcre2_match_data_create(1, nullptr));
  if (pattern_->match == nullptr) throw std::bad_alloc();
}

WordSplitter::~WordSplitter() = default;

size_t WordSplitter::FirstWord(std::string_view text, bool more_may_follow) {
  // A hard partial match is reported as soon as the end of `text` was looked at, which is when a
  // further character could have changed the result.
  const uint32_t options = PCRE2_NO_UTF_CHECK | (more_may_follow ? PCRE2_PARTIAL_HARD : 0u);
  const int result = pcre2_match(pattern_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                 text.size(), 0, options, pattern_->match.get(), nullptr);
  if (result == PCRE2_ERROR_PARTIAL) return 0;
  if (result < 0) Fail("split text into words", result);
  return pcre2_get_ovector_pointer(pattern_->match.get())[1];
}

}  // namespace hypermoe
