#include "runtime/word_splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace hypermoe {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Words(std::string_view text) {
  WordSplitter splitter;
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t size = splitter.FirstWord(text, false);
    words.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return words;
}

// Expected values: Python's regex module with the pattern of OpenAI's encoder.py.
TEST(WordSplitterTest, LettersNumbersAndOtherCharactersAreApart) {
  EXPECT_THAT(Words("Hello world, it is 2019!!"),
              ElementsAre("Hello", " world", ",", " it", " is", " 2019", "!!"));
  EXPECT_THAT(Words("a1_b<|endoftext|>"), ElementsAre("a", "1", "_", "b", "<|", "endoftext", "|>"));
  EXPECT_THAT(
      Words("\xC3\xA9t\xC3\xA9\xE4\xB8\xAD \xD9\xA3\xC2\xB2\xF0\x9F\x98\x80"),
      ElementsAre("\xC3\xA9t\xC3\xA9\xE4\xB8\xAD", " \xD9\xA3\xC2\xB2", "\xF0\x9F\x98\x80"));
}

TEST(WordSplitterTest, ContractionsAreWordsAndLowerCase) {
  EXPECT_THAT(Words("I'll they've 'tis"), ElementsAre("I", "'ll", " they", "'ve", " '", "tis"));
  EXPECT_THAT(Words("can't 'D'd''s"), ElementsAre("can", "'t", " '", "D", "'d", "''", "s"));
}

TEST(WordSplitterTest, TheLastWhiteSpaceGoesToTheWordThatFollows) {
  EXPECT_THAT(Words("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(Words("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(Words("a \n \t"), ElementsAre("a", " \n \t"));
}

TEST(WordSplitterTest, WhiteSpaceIsThatOfUnicode) {
  for (const std::string space : {"\xC2\x85", "\xC2\xA0", "\xE1\x9A\x80", "\xE2\x80\xA8",
                                  "\xE2\x80\xAF", "\xE3\x80\x80", "\x0B"}) {
    EXPECT_THAT(Words("!" + space + "!"), ElementsAre("!", space, "!")) << space;
  }
  // Mongolian vowel separator, zero-width space, byte order mark, unit separator.
  for (const std::string other : {"\xE1\xA0\x8E", "\xE2\x80\x8B", "\xEF\xBB\xBF", "\x1F"})
    EXPECT_THAT(Words("!" + other + "!"), ElementsAre("!" + other + "!")) << other;
}

TEST(WordSplitterTest, WhatMoreTextCouldChangeIsNotDecided) {
  WordSplitter splitter;
  for (const std::string open : {"a", " ", "  ", "'", "'r", "1", "!", " a", "\n"}) {
    EXPECT_EQ(splitter.FirstWord(open, true), 0u) << open;
    EXPECT_EQ(splitter.FirstWord(open, false) > 0, true) << open;
  }
  EXPECT_EQ(splitter.FirstWord("ab ", true), 2u);
  EXPECT_EQ(splitter.FirstWord("'s", true), 2u);
  EXPECT_EQ(splitter.FirstWord("  a", true), 1u);
}

TEST(WordSplitterTest, WordsMayBeLong) {
  WordSplitter splitter;
  for (const std::string character : {"a", " ", "!", "1", "'", "\xE4\xB8\xAD", "\xE3\x80\x80"}) {
    std::string text;
    while (text.size() < 3 << 20) text += character;
    EXPECT_EQ(splitter.FirstWord(text, false), text.size()) << character;
  }
}

}  // namespace
}  // namespace hypermoe
