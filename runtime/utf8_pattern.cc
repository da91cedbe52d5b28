#include "runtime/utf8_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <new>
#include <stdexcept>
#include <string>

namespace hypermoe {
namespace {

static_assert(PCRE2_MAJOR > 10 || (PCRE2_MAJOR == 10 && PCRE2_MINOR >= 40),
              "\\p{White_Space} and \\p{Cased} need PCRE2 10.40 or newer");

// Only out of memory and defects of this program get here.
[[noreturn]] void Fail(const std::string& action, int code) {
  if (code == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
  std::array<unsigned char, 256> message{};
  pcre2_get_error_message(code, message.data(), message.size());
  throw std::runtime_error("PCRE2 could not " + action + ": " +
                           reinterpret_cast<const char*>(message.data()));
}

struct Deleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

struct Utf8Pattern::Compiled {
  std::unique_ptr<pcre2_code, Deleter> code;
  std::unique_ptr<pcre2_match_data, Deleter> match;
  uint32_t match_options = 0;
};

Utf8Pattern::Utf8Pattern(const char* pattern, Where where)
    : compiled_(std::make_unique<Compiled>()) {
  // PCRE2 takes care of ill-formed text itself, or is told that there is none, which is faster.
  const uint32_t options = where == Where::kAtStart ? PCRE2_ANCHORED : PCRE2_MATCH_INVALID_UTF;
  if (where == Where::kAtStart) compiled_->match_options = PCRE2_NO_UTF_CHECK;
  int error = 0;
  size_t offset = 0;
  compiled_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_UCP | options, &error, &offset, nullptr));
  if (compiled_->code == nullptr) Fail(std::string("compile ") + pattern, error);
  // Where there is no JIT compiler, pcre2_match interprets the pattern: slower, with equal results.
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  compiled_->match.reset(pcre2_match_data_create(1, nullptr));
  if (compiled_->match == nullptr) throw std::bad_alloc();
}

Utf8Pattern::~Utf8Pattern() = default;
Utf8Pattern::Utf8Pattern(Utf8Pattern&&) noexcept = default;

Utf8Pattern::Match Utf8Pattern::Find(std::string_view text, size_t from, bool more_may_follow) {
  // A hard partial match is reported as soon as the end of `text` was looked at, which is when a
  // further character could have changed the result.
  const uint32_t options = compiled_->match_options | (more_may_follow ? PCRE2_PARTIAL_HARD : 0u);
  const int result = pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                 text.size(), from, options, compiled_->match.get(), nullptr);
  if (result == PCRE2_ERROR_PARTIAL) return {Outcome::kUnsettled};
  if (result == PCRE2_ERROR_NOMATCH) return {Outcome::kNone};
  if (result < 0) Fail("look for a pattern in a text", result);
  const size_t* ends = pcre2_get_ovector_pointer(compiled_->match.get());
  return {Outcome::kFound, ends[0], ends[1]};
}

}  // namespace hypermoe
