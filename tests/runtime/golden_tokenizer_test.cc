// The GPT-2 tokenizer against published ids. Needs ../shared and skips itself without it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "runtime/tokenizer.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;

const std::string kData = HYPERMOE_SOURCE_DIR "/../shared/data/";

class GoldenGpt2Test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kData)) GTEST_SKIP() << "no " << kData;
    auto made = MakeTokenizer("gpt2:" + kData + "tokenizers/gpt2");
    ASSERT_TRUE(made.ok()) << made.status();
    tokenizer_ = *std::move(made);
  }

  std::vector<int32_t> Encode(const std::string& text) {
    std::vector<int32_t> ids;
    tokenizer_->Encode(text, &ids);
    return ids;
  }

  // Every case of a golden file, and its decoding.
  void ExpectCases(const std::string& name, size_t count) {
    const Json golden = Json::parse(ReadFile(kData + "golden/" + name));
    ASSERT_EQ(golden["cases"].size(), count);
    for (const Json& item : golden["cases"]) {
      const auto text = item["text"].get<std::string>();
      EXPECT_EQ(Encode(text), item["ids"].get<std::vector<int32_t>>()) << text;
      EXPECT_EQ(*tokenizer_->Decode(item["ids"].get<std::vector<int64_t>>()), text);
    }
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

// Of the ids as little-endian uint32.
std::string Sha256(const std::vector<int32_t>& ids) {
  std::string bytes;
  for (const int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(id >> shift));
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  std::string hex;
  for (const unsigned char byte : digest) {
    hex.push_back("0123456789abcdef"[byte >> 4]);
    hex.push_back("0123456789abcdef"[byte & 15]);
  }
  return hex;
}

void ExpectIds(const std::vector<int32_t>& ids, const Json& expected) {
  EXPECT_EQ(ids.size(), expected["tokens"].get<size_t>());
  EXPECT_EQ(Sha256(ids), expected["sha256_of_ids_uint32_le"].get<std::string>());
}

TEST_F(GoldenGpt2Test, Vocabulary) {
  EXPECT_EQ(tokenizer_->vocab_size(), 50257);
  EXPECT_EQ(tokenizer_->end_of_text(), 50256);
  EXPECT_THAT(Encode("<|endoftext|>"), ElementsAre(27, 91, 437, 1659, 5239, 91, 29));
}

TEST_F(GoldenGpt2Test, PublishedCases) { ExpectCases("gpt2_bpe_published.json", 52); }
TEST_F(GoldenGpt2Test, ComputedCases) { ExpectCases("gpt2_bpe_computed.json", 263); }

TEST_F(GoldenGpt2Test, WholeFilesInPiecesOfAnySize) {
  const Json golden = Json::parse(ReadFile(kData + "golden/whole_file_tokens.json"));
  std::mt19937 random(1);
  const auto encoder = tokenizer_->NewEncoder();
  ASSERT_EQ(golden["files"].size(), 5u);
  for (const Json& item : golden["files"]) {
    const std::string text = ReadFile(kData + item["file"].get<std::string>());
    SCOPED_TRACE(item["file"]);
    std::vector<int32_t> whole, lines;
    for (size_t at = 0; at < text.size();) {
      const size_t size = std::min<size_t>(text.size() - at, random() % 5000);
      encoder->Write(std::string_view(text).substr(at, size), &whole);
      at += size;
    }
    encoder->Finish(&whole);
    ExpectIds(whole, item["gpt2_whole_file"]);
    EXPECT_EQ(*tokenizer_->Decode(std::vector<int64_t>(whole.begin(), whole.end())), text);

    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      encoder->Write(std::string_view(text).substr(at, end - at), &lines);
      encoder->Finish(&lines);
      at = end + 1;
    }
    ExpectIds(lines, item["gpt2_line_by_line"]);
  }
}

}  // namespace
}  // namespace hypermoe
