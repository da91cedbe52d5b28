#include "runtime/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace hypermoe {
namespace {

using std::string_literals::operator""s;

TEST(Utf8Test, FirstAndLastCharacterOfEachLengthAreValid) {
  for (const std::string& text :
       {""s, "\0"s, "\x7F"s, "\xC2\x80"s, "\xDF\xBF"s, "\xE0\xA0\x80"s, "\xED\x9F\xBF"s,
        "\xEE\x80\x80"s, "\xEF\xBF\xBF"s, "\xF0\x90\x80\x80"s, "\xF4\x8F\xBF\xBF"s,
        "\xEF\xBB\xBFwith a byte order mark"s}) {
    EXPECT_EQ(ValidUtf8Prefix(text), text.size()) << ::testing::PrintToString(text);
  }
}

TEST(Utf8Test, TheClassicBadSequencesEndTheValidPrefix) {
  for (const std::string& bad : {"\x80"s,              // continuation byte alone
                                 "\xC0\xAF"s,          // overlong '/'
                                 "\xC1\xBF"s,          // overlong U+007F
                                 "\xE0\x80\xAF"s,      // overlong '/'
                                 "\xE0\x9F\xBF"s,      // overlong U+07FF
                                 "\xF0\x80\x80\xAF"s,  // overlong '/'
                                 "\xF0\x8F\xBF\xBF"s,  // overlong U+FFFF
                                 "\xED\xA0\x80"s,      // surrogate U+D800
                                 "\xED\xBF\xBF"s,      // surrogate U+DFFF
                                 "\xF4\x90\x80\x80"s,  // U+110000
                                 "\xF5\x80\x80\x80"s, "\xFE"s, "\xFF"s, "\xC3"s, "\xE2\x82"s,
                                 "\xF0\x9F\x98"s,                 // cut short by the end
                                 "\xE2\x82x"s, "\xF0\x9Fxx"s}) {  // cut short by another character
    // At every position within the eight bytes that are looked at together.
    for (size_t before = 0; before < 10; ++before) {
      EXPECT_EQ(ValidUtf8Prefix(std::string(before, 'a') + bad + "after"), before)
          << ::testing::PrintToString(bad);
      EXPECT_EQ(ValidUtf8Prefix(std::string(before, 'a') + bad), before)
          << ::testing::PrintToString(bad);
    }
  }
}

TEST(Utf8Test, OnlyWhatMoreBytesCouldCompleteIsUnfinished) {
  EXPECT_EQ(UnfinishedUtf8Tail(""), 0u);
  EXPECT_EQ(UnfinishedUtf8Tail("abc"), 0u);
  EXPECT_EQ(UnfinishedUtf8Tail("a\xC3\xA4"), 0u);
  EXPECT_EQ(UnfinishedUtf8Tail("a\xC3"), 1u);
  EXPECT_EQ(UnfinishedUtf8Tail("a\xE2\x82"), 2u);
  EXPECT_EQ(UnfinishedUtf8Tail("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(UnfinishedUtf8Tail("a\xED\xA0"), 0u);  // no character begins so
  EXPECT_EQ(UnfinishedUtf8Tail("\x80\x80\x80\x80"), 0u);
}

}  // namespace
}  // namespace hypermoe
