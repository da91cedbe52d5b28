// The GPT-2 and T5 tokenizers against published ids. Needs ../shared and skips itself without it.
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

class GoldenTokenizerTest : public ::testing::Test {
 protected:
  // `name`: such as "gpt2:tokenizers/gpt2", a path in the data.
  void Open(const std::string& name) {
    if (!std::filesystem::exists(kData)) GTEST_SKIP() << "no " << kData;
    const size_t path = name.find(':') + 1;
    auto made = MakeTokenizer(name.substr(0, path) + kData + name.substr(path));
    ASSERT_TRUE(made.ok()) << made.status();
    tokenizer_ = *std::move(made);
  }

  std::vector<int32_t> Encode(const std::string& text) {
    std::vector<int32_t> ids;
    tokenizer_->Encode(text, &ids);
    return ids;
  }

  // Every case of a golden file, and where `decoded` is a field of it, its decoding.
  void ExpectCases(const std::string& name, size_t count, const char* decoded) {
    const Json golden = Json::parse(ReadFile(kData + "golden/" + name));
    ASSERT_EQ(golden["cases"].size(), count);
    for (const Json& item : golden["cases"]) {
      const auto text = item["text"].get<std::string>();
      EXPECT_EQ(Encode(text), item["ids"].get<std::vector<int32_t>>()) << text;
      if (decoded == nullptr) continue;
      EXPECT_EQ(*tokenizer_->Decode(item["ids"].get<std::vector<int64_t>>()),
                item[decoded].get<std::string>());
    }
  }

  // Each line as a text, in pieces of any size.
  std::vector<int32_t> EncodeLines(const std::string& text) {
    const auto encoder = tokenizer_->NewEncoder();
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      while (at < end) {
        const size_t size = std::min<size_t>(end - at, 1 + random_() % 500);
        encoder->Write(std::string_view(text).substr(at, size), &ids);
        at += size;
      }
      encoder->Finish(&ids);
      at = end + 1;
    }
    return ids;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::mt19937 random_{1};
};

class GoldenGpt2Test : public GoldenTokenizerTest {
 protected:
  void SetUp() override { Open("gpt2:tokenizers/gpt2"); }
};

class GoldenT5Test : public GoldenTokenizerTest {
 protected:
  void SetUp() override { Open("spm:tokenizers/t5/spiece.model"); }
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

TEST_F(GoldenGpt2Test, PublishedCases) { ExpectCases("gpt2_bpe_published.json", 52, "text"); }
TEST_F(GoldenGpt2Test, ComputedCases) { ExpectCases("gpt2_bpe_computed.json", 263, "text"); }

TEST_F(GoldenGpt2Test, WholeFilesInPiecesOfAnySize) {
  const Json golden = Json::parse(ReadFile(kData + "golden/whole_file_tokens.json"));
  const auto encoder = tokenizer_->NewEncoder();
  ASSERT_EQ(golden["files"].size(), 5u);
  for (const Json& item : golden["files"]) {
    const std::string text = ReadFile(kData + item["file"].get<std::string>());
    SCOPED_TRACE(item["file"]);
    std::vector<int32_t> whole;
    for (size_t at = 0; at < text.size();) {
      const size_t size = std::min<size_t>(text.size() - at, random_() % 5000);
      encoder->Write(std::string_view(text).substr(at, size), &whole);
      at += size;
    }
    encoder->Finish(&whole);
    ExpectIds(whole, item["gpt2_whole_file"]);
    EXPECT_EQ(*tokenizer_->Decode(std::vector<int64_t>(whole.begin(), whole.end())), text);
    ExpectIds(EncodeLines(text), item["gpt2_line_by_line"]);
  }
}

TEST_F(GoldenT5Test, Vocabulary) {
  EXPECT_EQ(tokenizer_->vocab_size(), 32100);
  EXPECT_EQ(tokenizer_->end_of_text(), 1);
  EXPECT_EQ(*tokenizer_->Decode({32099, 32000}), "<extra_id_0> <extra_id_99>");
}

TEST_F(GoldenT5Test, PublishedCases) {
  ExpectCases("t5_sentencepiece_published.json", 48, nullptr);
}
TEST_F(GoldenT5Test, ComputedCases) {
  ExpectCases("t5_sentencepiece_computed.json", 263, "decoded");
}

TEST_F(GoldenT5Test, WholeFiles) {
  const Json golden = Json::parse(ReadFile(kData + "golden/whole_file_tokens.json"));
  ASSERT_EQ(golden["files"].size(), 5u);
  for (const Json& item : golden["files"]) {
    SCOPED_TRACE(item["file"]);
    ExpectIds(EncodeLines(ReadFile(kData + item["file"].get<std::string>())),
              item["t5_line_by_line"]);
  }
}

}  // namespace
}  // namespace hypermoe
