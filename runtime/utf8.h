// Well-formed UTF-8 as the Unicode Standard defines it (table 3-7): no overlong forms, no
// surrogates, nothing above U+10FFFF, nothing cut short.
#pragma once

#include <cstddef>
#include <string_view>

namespace hypermoe {

// The offset of the first byte of the first ill-formed sequence, or text.size().
size_t ValidUtf8Prefix(std::string_view text);

// How many bytes at the end of `text`, 0 to 3, begin a character that more bytes could complete.
size_t UnfinishedUtf8Tail(std::string_view text);

}  // namespace hypermoe
