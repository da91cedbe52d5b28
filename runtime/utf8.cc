#include "runtime/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace hypermoe {
namespace {

// What may follow a lead byte: `length` bytes in all, the second within [low, high], later ones
// within [0x80, 0xBF].
struct Form {
  size_t length;
  uint8_t low, high;
};

// Length 0: not a lead byte.
Form FormOf(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2)
    return {0, 0, 0};  // continuation bytes, and C0 and C1, which only overlong forms use
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};  // below: overlong
  if (lead == 0xED) return {3, 0x80, 0x9F};  // above: surrogates
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};  // below: overlong
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};  // above: beyond U+10FFFF
  return {0, 0, 0};
}

// How many of the sequence's bytes are there and right; equal to the form's length if it is
// complete.
size_t MatchedBytes(std::string_view text, size_t at, const Form& form) {
  size_t matched = std::min<size_t>(form.length, 1);
  while (matched < form.length && at + matched < text.size()) {
    const uint8_t byte = static_cast<uint8_t>(text[at + matched]);
    const uint8_t low = matched == 1 ? form.low : 0x80, high = matched == 1 ? form.high : 0xBF;
    if (byte < low || byte > high) break;
    ++matched;
  }
  return matched;
}

bool EightAscii(const char* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return (word & 0x8080808080808080u) == 0;
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (at + 8 <= text.size() && EightAscii(text.data() + at)) {
      at += 8;
      continue;
    }
    const Form form = FormOf(static_cast<uint8_t>(text[at]));
    if (form.length == 0 || MatchedBytes(text, at, form) < form.length) return at;
    at += form.length;
  }
  return at;
}

size_t UnfinishedUtf8Tail(std::string_view text) {
  for (size_t tail = 1; tail <= std::min<size_t>(3, text.size()); ++tail) {
    const size_t at = text.size() - tail;
    const Form form = FormOf(static_cast<uint8_t>(text[at]));
    if (form.length > tail && MatchedBytes(text, at, form) == tail) return tail;
  }
  return 0;
}

}  // namespace hypermoe
