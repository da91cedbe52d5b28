#include "runtime/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/token_file.h"
#include "runtime/tokenizer.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_gpt2_vocabulary.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kShakespeare[] = HYPERMOE_SOURCE_DIR "/configs/data/tiny_shakespeare/input.txt";

class PrepareTest : public ::testing::Test {
 protected:
  absl::StatusOr<PrepareResult> Run(const std::vector<std::string>& inputs, bool skip = false) {
    PrepareOptions options;
    options.inputs = inputs;
    options.output = folder_ / "out/t";
    options.skip_bad_text = skip;
    return Prepare(options, nullptr);
  }

  void ExpectNothingLeft() {
    std::error_code error;
    EXPECT_TRUE(!std::filesystem::exists(folder_ / "out") ||
                std::filesystem::is_empty(folder_ / "out", error));
  }

  TemporaryFolder folder_;
};

TEST_F(PrepareTest, DocumentsAreKeptApartByEndOfText) {
  const auto result = Run({folder_.Write("a.txt", "ab"),
                           folder_.Write("b.jsonl", "{\"text\": \"c\"}\n{\"text\": \"\"}\n"),
                           folder_.Write("c.txt", "d")});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->documents, 4);
  EXPECT_EQ(result->tokens, 8);
  EXPECT_EQ(result->skipped, 0);
  const auto file = *TokenFile::Open(folder_ / "out/t");
  EXPECT_EQ(file->num_documents(), 4);
  std::vector<int64_t> ids(8);
  file->Read(0, 8, ids.data());
  EXPECT_THAT(ids, ::testing::ElementsAre('a', 'b', 256, 'c', 256, 256, 'd', 256));
}

TEST_F(PrepareTest, DocumentsCanBeJoinedWithoutEndOfText) {
  PrepareOptions options;
  options.inputs = {folder_.Write("a.txt", "ab"),
                    folder_.Write("b.jsonl", "{\"text\": \"c\"}\n{\"text\": \"\"}\n")};
  options.output = folder_ / "t";
  options.end_of_text = false;
  const auto result = Prepare(options, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->documents, 3);
  EXPECT_EQ(result->tokens, 3);
  const auto file = *TokenFile::Open(folder_ / "t");
  EXPECT_EQ(file->num_documents(), 3);
  std::vector<int64_t> ids(3);
  file->Read(0, 3, ids.data());
  EXPECT_THAT(ids, ::testing::ElementsAre('a', 'b', 'c'));
}

TEST_F(PrepareTest, TinyShakespeareDecodesBackToItself) {
  const auto result = Run({kShakespeare});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->documents, 1);
  EXPECT_EQ(result->tokens, 1115395);
  const auto file = *TokenFile::Open(folder_ / "out/t");
  std::vector<int64_t> ids(static_cast<size_t>(file->num_tokens()));
  file->Read(0, file->num_tokens(), ids.data());
  EXPECT_EQ(ids.back(), 256);
  std::filesystem::copy_file(kShakespeare, folder_ / "copy.txt");
  EXPECT_EQ(*(*MakeTokenizer("byte"))->Decode(ids), ReadFile(folder_ / "copy.txt"));
}

// The readers hand out pieces of a MiB, which end within words of these documents.
TEST_F(PrepareTest, BytePairsDoNotDependOnThePiecesOfAReader) {
  std::string document, escaped;
  while (document.size() < (5 << 19)) {
    document += "in the\t the!  tin";
    escaped += "in the\\t the!  tin";
  }
  const std::string json = "{\"text\": \"the \"}\n{\"text\": \"" + escaped + "\"}\n";

  PrepareOptions options;
  options.inputs = {folder_.Write("a.jsonl", json), folder_.Write("b.txt", document)};
  options.output = folder_ / "t";
  options.tokenizer = WriteTinyGpt2(folder_, kTinyMerges);
  const auto result = Prepare(options, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->documents, 3);

  const auto tokenizer = *MakeTokenizer(options.tokenizer);
  std::vector<int32_t> expected;
  for (const std::string& text : {std::string("the "), document, document}) {
    tokenizer->Encode(text, &expected);
    expected.push_back(tokenizer->end_of_text());
  }
  const auto file = *TokenFile::Open(folder_ / "t");
  std::vector<int64_t> ids(static_cast<size_t>(file->num_tokens()));
  file->Read(0, file->num_tokens(), ids.data());
  EXPECT_TRUE(ids == std::vector<int64_t>(expected.begin(), expected.end()));
}

TEST_F(PrepareTest, MalformedTextStopsAndLeavesNothing) {
  const auto result = Run({folder_.Write("a.txt", "good"),
                           folder_.Write("b.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n")});
  EXPECT_EQ(ExitCodeOf(result.status()), ExitCode::kBadData);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("b.jsonl:2:1: "));
  ExpectNothingLeft();
}

TEST_F(PrepareTest, SkippedTextIsCounted) {
  const auto result = Run({folder_.Write("a.txt", "good\n\xFF\n"),
                           folder_.Write("b.jsonl", "{}\n{\"text\": \"a\"}\n{\n")},
                          true);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->documents, 2);
  EXPECT_EQ(result->skipped, 3);
  EXPECT_EQ(result->tokens, 8);
}

TEST_F(PrepareTest, InputsWithoutTextAreErrors) {
  EXPECT_THAT(std::string(Run({folder_.Write("a.txt", "")}).status().message()),
              AllOf(HasSubstr("a.txt"), HasSubstr("no text")));
  EXPECT_THAT(std::string(Run({folder_.Write("a.jsonl", "{}\n{}\n")}, true).status().message()),
              AllOf(HasSubstr("a.jsonl"), HasSubstr("2 lines")));
  EXPECT_EQ(ExitCodeOf(Run({folder_.Write("a.txt", "\xFF")}, true).status()), ExitCode::kBadData);
  ExpectNothingLeft();
}

TEST_F(PrepareTest, AllInputsAreCheckedBeforeTheFirstIsRead) {
  folder_.Write("a.txt", "\xFF");  // would be an error of another kind
  for (const std::string bad : {"none.txt", ""}) {
    const auto result = Run({(folder_ / "a.txt"), (folder_ / bad)});
    EXPECT_EQ(ExitCodeOf(result.status()), ExitCode::kIo);
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(folder_ / bad));
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
}

TEST_F(PrepareTest, WrongOptionsAreUsageErrors) {
  EXPECT_EQ(ExitCodeOf(Run({}).status()), ExitCode::kUsage);
  PrepareOptions options;
  options.inputs = {folder_.Write("a.txt", "a")};
  EXPECT_EQ(ExitCodeOf(Prepare(options, nullptr).status()), ExitCode::kUsage);
  options.output = folder_ / "t";
  options.tokenizer = "bites";
  EXPECT_EQ(ExitCodeOf(Prepare(options, nullptr).status()), ExitCode::kUsage);
  options.tokenizer = "gpt2:" + (folder_ / "none");
  EXPECT_EQ(ExitCodeOf(Prepare(options, nullptr).status()), ExitCode::kIo);
}

TEST_F(PrepareTest, AFailureLeavesOlderOutputAsItWas) {
  ASSERT_TRUE(Run({folder_.Write("a.txt", "old")}).ok());
  EXPECT_FALSE(Run({folder_.Write("a.txt", "new\xFF")}).ok());
  EXPECT_EQ((*TokenFile::Open(folder_ / "out/t"))->num_tokens(), 4);
  ASSERT_TRUE(Run({folder_.Write("a.txt", "newer")}).ok());
  EXPECT_EQ((*TokenFile::Open(folder_ / "out/t"))->num_tokens(), 6);
}

}  // namespace
}  // namespace hypermoe
