#include "runtime/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ByteTokenizerTest, EveryByteIsItsOwnIdAndDecodesBack) {
  const auto tokenizer = *MakeTokenizer("byte");
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->end_of_text(), 256);
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  std::vector<int32_t> ids = {7};
  tokenizer->Encode(text, &ids);
  ASSERT_EQ(ids.size(), 257u);
  EXPECT_EQ(ids[0], 7);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[static_cast<size_t>(byte) + 1], byte);
  const std::vector<int64_t> wide(ids.begin() + 1, ids.end());
  EXPECT_EQ(*tokenizer->Decode(wide), text);
}

TEST(ByteTokenizerTest, SentinelsLieAboveTheTextsIdsAndDecodeToTheirNames) {
  const auto tokenizer = *MakeTokenizer("byte");
  EXPECT_EQ(tokenizer->first_sentinel(), 356);
  EXPECT_EQ(*tokenizer->Decode({'a', 356, 'b', 257}), "a<extra_id_0>b<extra_id_99>");
}

TEST(ByteTokenizerTest, EndOfTextDecodesToNothingAndUnknownIdsAreErrors) {
  const auto tokenizer = *MakeTokenizer("byte");
  EXPECT_EQ(*tokenizer->Decode({'a', 256, 'b'}), "ab");
  for (const int64_t id : {int64_t{357}, int64_t{-1}}) {
    const auto text = tokenizer->Decode({'a', id});
    EXPECT_EQ(ExitCodeOf(text.status()), ExitCode::kBadData);
    EXPECT_THAT(std::string(text.status().message()), HasSubstr(std::to_string(id)));
  }
}

TEST(MakeTokenizerTest, AnUnknownNameListsTheKnownOnes) {
  const auto tokenizer = MakeTokenizer("bytes");
  EXPECT_EQ(ExitCodeOf(tokenizer.status()), ExitCode::kUsage);
  EXPECT_EQ(std::string(tokenizer.status().message()),
            "unknown tokenizer 'bytes': known are byte, gpt2:DIR, spm:FILE; did you mean 'byte'?");
}

TEST(MakeTokenizerTest, Gpt2NeedsAFolder) {
  for (const std::string name : {"gpt2", "gpt2:"}) {
    const auto tokenizer = MakeTokenizer(name);
    EXPECT_EQ(ExitCodeOf(tokenizer.status()), ExitCode::kUsage);
    EXPECT_EQ(std::string(tokenizer.status().message()),
              "the tokenizer '" + name +
                  "' names no vocabulary: give gpt2:DIR, where the folder DIR holds vocab.json and "
                  "merges.txt");
  }
  EXPECT_EQ(ExitCodeOf(MakeTokenizer("gpt2:/no/such/folder").status()), ExitCode::kIo);
  EXPECT_NE(std::string(MakeTokenizer("gpt-2:a").status().message()).find("'gpt2:DIR'?"),
            std::string::npos);
}

}  // namespace
}  // namespace hypermoe
