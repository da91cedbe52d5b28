#include "runtime/gpt2_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/support/tiny_gpt2_vocabulary.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids;
  tokenizer.Encode(text, &ids);
  return ids;
}

std::string Decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  const auto text = tokenizer.Decode(std::vector<int64_t>(ids.begin(), ids.end()));
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

// Characters that open every case of the pattern and of UTF-8; with `ill_formed` some cut short.
std::string RandomText(std::mt19937& random, size_t characters, bool ill_formed) {
  static const std::vector<std::string> alphabet = {"a",
                                                    "h",
                                                    "e",
                                                    "t",
                                                    "in",
                                                    " ",
                                                    " ",
                                                    " ",
                                                    "\n",
                                                    "'s",
                                                    "'",
                                                    "l",
                                                    "\xC3\xA9",
                                                    "\xC2\xA0",
                                                    "1",
                                                    "!",
                                                    "?!",
                                                    "\xE4\xB8\xAD",
                                                    "r",
                                                    "v",
                                                    "\xF0\x9F\x98\x80",
                                                    "\xE3\x80\x80",
                                                    std::string(1, '\0'),
                                                    "Z",
                                                    "\t",
                                                    "0",
                                                    "\xFF",
                                                    "\xE4",
                                                    "\xE4\xB8",
                                                    "\xF0\x9F\x98",
                                                    "\x80",
                                                    "\xC0"};
  const size_t count = alphabet.size() - (ill_formed ? 0 : 6);
  std::string text;
  for (size_t i = 0; i < characters; ++i) text += alphabet[random() % count];
  return text;
}

class Gpt2TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = MakeTokenizer(WriteTinyGpt2(folder_, kTinyMerges));
    ASSERT_TRUE(made.ok()) << made.status();
    tokenizer_ = *std::move(made);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(Gpt2TokenizerTest, MergesByRankWithinWords) {
  EXPECT_EQ(tokenizer_->vocab_size(), 262);
  EXPECT_THAT(Encode(*tokenizer_, "in the"), ElementsAre(258, 259));
  EXPECT_THAT(Encode(*tokenizer_, "the tin"), ElementsAre('t', 257, 256, 258));
  EXPECT_THAT(Encode(*tokenizer_, "\n\n"), ElementsAre(260));
  // The second line end is the last white space before a word.
  EXPECT_THAT(Encode(*tokenizer_, "\n\na"), ElementsAre('\n', '\n', 'a'));
  EXPECT_THAT(Encode(*tokenizer_, ""), ElementsAre());
  EXPECT_THAT(Encode(*tokenizer_, "\xC2\xA0\xAD"), ElementsAre(0xC2, 0xA0, 0xAD));
}

TEST_F(Gpt2TokenizerTest, EveryByteOfIllFormedUtf8IsAWord) {
  EXPECT_THAT(Encode(*tokenizer_, "in the\xFF\xFFhe\xE4\xB8"),
              ElementsAre(258, 259, 0xFF, 0xFF, 257, 0xE4, 0xB8));
  EXPECT_THAT(Encode(*tokenizer_, "\n\n\xE4\xB8he"), ElementsAre(260, 0xE4, 0xB8, 257));
}

TEST_F(Gpt2TokenizerTest, EndOfTextIsNoTextAndNoTextIsEndOfText) {
  EXPECT_EQ(tokenizer_->end_of_text(), 261);
  EXPECT_EQ(*tokenizer_->Decode({'a', 261, 'b'}), "ab");
  const auto ids = Encode(*tokenizer_, "<|endoftext|>");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 261), 0);
  EXPECT_EQ(Decode(*tokenizer_, ids), "<|endoftext|>");
}

TEST_F(Gpt2TokenizerTest, UnknownIdsAreErrors) {
  for (const int64_t id : {-1, 262, 1 << 30}) {
    const auto text = tokenizer_->Decode({'a', id});
    EXPECT_EQ(ExitCodeOf(text.status()), ExitCode::kBadData);
    EXPECT_EQ(std::string(text.status().message()),
              "the GPT-2 tokenizer cannot decode id " + std::to_string(id) + ": it knows 0 to 261");
  }
}

TEST_F(Gpt2TokenizerTest, EveryTextDecodesToItself) {
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    std::string text = RandomText(random, random() % 60, i % 2 == 0);
    if (i % 3 == 0) std::generate(text.begin(), text.end(), random);
    EXPECT_EQ(Decode(*tokenizer_, Encode(*tokenizer_, text)), text);
  }
}

TEST_F(Gpt2TokenizerTest, IdsDoNotDependOnHowATextIsCut) {
  std::mt19937 random(2);
  const auto encoder = tokenizer_->NewEncoder();
  for (int i = 0; i < 1000; ++i) {
    const std::string text = RandomText(random, random() % 80, i % 2 == 0);
    const size_t longest = 1 + random() % 20;
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      const size_t size = std::min(text.size() - at, random() % (longest + 1));
      encoder->Write(std::string_view(text).substr(at, size), &ids);
      at += size;
    }
    encoder->Finish(&ids);
    ASSERT_EQ(ids, Encode(*tokenizer_, text)) << "case " << i << ": " << text;
  }
}

TEST_F(Gpt2TokenizerTest, WhatIsCertainIsNotHeldBack) {
  const auto encoder = tokenizer_->NewEncoder();
  std::vector<int32_t> ids;
  std::string text;
  while (text.size() < 100000) text += "in the ";
  encoder->Write(text, &ids);
  EXPECT_EQ(Decode(*tokenizer_, ids), text.substr(0, text.size() - 1));
}

// Searching the word from its beginning with every piece would run into the time limit.
TEST_F(Gpt2TokenizerTest, ALongWordInManyPiecesTakesLinearTime) {
  const auto encoder = tokenizer_->NewEncoder();
  std::vector<int32_t> ids;
  for (int i = 0; i < 400000; ++i) encoder->Write("he", &ids);
  encoder->Finish(&ids);
  EXPECT_EQ(ids, std::vector<int32_t>(400000, 257));
}

TEST_F(Gpt2TokenizerTest, MoreWordsThanTheCacheHoldsKeepTheirIds) {
  std::string text;
  for (int i = 0; i < 100000; ++i) text += " the" + std::string(1, '!') + std::to_string(i);
  const auto once = Encode(*tokenizer_, text);
  const auto twice = Encode(*tokenizer_, text + text);
  ASSERT_EQ(twice.size(), 2 * once.size());
  EXPECT_TRUE(std::equal(once.begin(), once.end(), twice.begin()));
  EXPECT_TRUE(std::equal(once.begin(), once.end(), twice.begin() + static_cast<long>(once.size())));
  EXPECT_EQ(Decode(*tokenizer_, once), text);
}

// OpenAI's encoder.py: merge every occurrence of the pair of lowest rank, then look again.
std::vector<std::string> MergeLikeEncoderPy(const std::string& word, const MergeList& merges) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < merges.size(); ++i) ranks[merges[i]] = i;
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    size_t best = merges.size();
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found != ranks.end()) best = std::min(best, found->second);
    }
    if (best == merges.size()) return parts;
    std::vector<std::string> merged;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i + 1 < parts.size() && std::pair(parts[i], parts[i + 1]) == merges[best]) {
        merged.push_back(parts[i] + parts[i + 1]);
        ++i;
      } else {
        merged.push_back(parts[i]);
      }
    }
    parts = merged;
  }
}

TEST(BytePairMergerTest, RandomMergesEqualThoseOfEncoderPy) {
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) {
    MergeList merges;
    std::vector<std::string> pieces = {"a", "b", "c"};
    while (merges.size() < 25) {
      const std::string left = pieces[random() % pieces.size()];
      const std::string right = pieces[random() % pieces.size()];
      // As in training, where a text is merged as it will be later, each piece is made in one way.
      if (std::find(pieces.begin(), pieces.end(), left + right) != pieces.end()) continue;
      merges.emplace_back(left, right);
      pieces.push_back(left + right);
    }
    const TemporaryFolder folder;
    const auto tokenizer = *MakeTokenizer(WriteTinyGpt2(folder, merges));
    for (int j = 0; j < 100; ++j) {
      std::string word(random() % 60, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % 3);
      std::vector<std::string> parts;
      for (const int64_t id : Encode(*tokenizer, word)) parts.push_back(*tokenizer->Decode({id}));
      ASSERT_EQ(parts, MergeLikeEncoderPy(word, merges)) << word;
    }
  }
}

}  // namespace
}  // namespace hypermoe
