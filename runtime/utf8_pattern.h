// Regular expressions over UTF-8 text, with Unicode's classes of characters (PCRE2).
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace hypermoe {

// Not for use by two threads at once.
class Utf8Pattern {
 public:
  enum class Where { kAtStart, kAnywhere };
  // Throws for what is no regular expression.
  Utf8Pattern(const char* pattern, Where where);
  ~Utf8Pattern();
  Utf8Pattern(Utf8Pattern&&) noexcept;

  enum class Outcome { kFound, kNone, kUnsettled };
  struct Match {
    Outcome outcome = Outcome::kNone;
    size_t begin = 0, end = 0;  // where kFound, bytes of the text
  };
  // The first match in `text` that begins at byte `from` (of a character) or later. Text that is
  // not well-formed UTF-8 matches nowhere that it is not, but may not be given to a pattern of
  // kAtStart, which does not look. Where `more_may_follow`: kUnsettled if more text could change
  // the result.
  Match Find(std::string_view text, size_t from = 0, bool more_may_follow = false);

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace hypermoe
