#include "runtime/gpt2_vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/tiny_gpt2_vocabulary.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Gpt2VocabularyTest : public ::testing::Test {
 protected:
  Gpt2VocabularyTest() { WriteTinyGpt2(folder_, kTinyMerges); }

  // What is wrong with the files, which is bad data in file `name` at `place`.
  std::string Problem(const std::string& name, const std::string& place) {
    const auto read = ReadGpt2Vocabulary(folder_.path());
    EXPECT_EQ(ExitCodeOf(read.status()), ExitCode::kBadData);
    const std::string message(read.status().message()), begin = folder_ / name + place + ": ";
    EXPECT_THAT(message, StartsWith(begin));
    return message.substr(std::min(begin.size(), message.size()));
  }
  std::string VocabProblem(const std::string& json) {
    folder_.Write("vocab.json", json);
    return Problem("vocab.json", "");
  }
  // The tiny vocabulary with one replacement.
  std::string VocabProblem(const std::string& old_text, const std::string& new_text) {
    std::string json = TinyVocabJson(kTinyMerges);
    json.replace(json.find(old_text), old_text.size(), new_text);
    return VocabProblem(json);
  }
  std::string MergesProblem(const std::string& text, int line) {
    folder_.Write("merges.txt", text);
    return Problem("merges.txt", ":" + std::to_string(line));
  }

  TemporaryFolder folder_;
};

TEST_F(Gpt2VocabularyTest, BytesAreShownAsPrintableCharacters) {
  const auto vocabulary = ReadGpt2Vocabulary(folder_.path());
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(vocabulary->byte_ids[byte], byte);
    EXPECT_EQ(vocabulary->pieces[byte], std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(vocabulary->pieces[259], " the");
  EXPECT_EQ(vocabulary->merges.size(), 5u);
}

TEST_F(Gpt2VocabularyTest, TheVersionLineIsOptionalAndLinesMayEndAsOnWindows) {
  folder_.Write("merges.txt", "# #\r\nh e\r\n");
  folder_.Write("vocab.json", TinyVocabJson({{"#", "#"}, {"h", "e"}}));
  const auto vocabulary = ReadGpt2Vocabulary(folder_.path());
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->merges.at(Gpt2Vocabulary::PairKey('#', '#')).rank, 0);
  EXPECT_EQ(vocabulary->merges.at(Gpt2Vocabulary::PairKey('h', 'e')).id, 257);
}

TEST_F(Gpt2VocabularyTest, AMissingFileIsNamed) {
  for (const std::string name : {"merges.txt", "vocab.json"}) {
    std::filesystem::remove(folder_ / name);
    const auto read = ReadGpt2Vocabulary(folder_.path());
    EXPECT_EQ(ExitCodeOf(read.status()), ExitCode::kIo);
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(folder_ / name));
  }
}

TEST_F(Gpt2VocabularyTest, MalformedVocabularies) {
  EXPECT_THAT(VocabProblem(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(VocabProblem("{\"a\": 0"), HasSubstr("not valid JSON"));
  EXPECT_THAT(VocabProblem("[\"a\"]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(VocabProblem("7"), HasSubstr("not a JSON object"));
  EXPECT_THAT(VocabProblem("{}"), HasSubstr("no piece stands for the single byte 0"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"he\": \"257\""),
              AllOf(HasSubstr("the key 'he'"), HasSubstr("a string"), HasSubstr("expected")));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"he\": -1"), HasSubstr("the key 'he' has -1"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"he\": 2.5"), HasSubstr("the key 'he' has 2.5"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"he\": {}"), HasSubstr("the key 'he' has an object"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"he\": 99999999999"), HasSubstr("99999999999"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"he\": 262"),
              HasSubstr("the key 'he' has id 262, but the ids of 262 pieces must be 0 to 261"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"he\": 256"), HasSubstr("has id 256, which '"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"in\": 257"), HasSubstr("the key 'in' is there twice"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"\": 257"), HasSubstr("is an empty piece"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"h e\": 257"), HasSubstr("stands for no byte"));
  EXPECT_THAT(VocabProblem("\"he\": 257", "\"\u4E2D\": 257"), HasSubstr("stands for no byte"));
  EXPECT_THAT(VocabProblem("\"b\": 98", "\"bb\": 98"),
              HasSubstr("no piece stands for the single byte 98"));
  EXPECT_THAT(VocabProblem("\"<|endoftext|>\"", "\"<|end|>\""),
              HasSubstr("the key '<|endoftext|>' is missing"));
}

TEST_F(Gpt2VocabularyTest, MalformedMerges) {
  EXPECT_THAT(MergesProblem("#version: 0.2\nh e\nhe\n", 3), HasSubstr("'he' is not two pieces"));
  EXPECT_THAT(MergesProblem("h e r\n", 1), HasSubstr("'h e r' is not two pieces"));
  EXPECT_THAT(MergesProblem("h  e\n", 1), HasSubstr("not two pieces"));
  EXPECT_THAT(MergesProblem(" h\n", 1), HasSubstr("the piece '' is not in vocab.json"));
  EXPECT_THAT(MergesProblem("h e\nh x\n", 2), HasSubstr("the piece 'hx' is not in vocab.json"));
  EXPECT_THAT(MergesProblem("xx e\n", 1), HasSubstr("the piece 'xx' is not in vocab.json"));
  EXPECT_THAT(MergesProblem("h \xC4\n", 1), HasSubstr("is not in vocab.json"));
  EXPECT_THAT(MergesProblem("h \xE4\xB8\xAD\n", 1), HasSubstr("is not in vocab.json"));
  EXPECT_THAT(MergesProblem("h e\ni n\nh e\n", 3), HasSubstr("the pair 'h e' is there twice"));
  EXPECT_THAT(MergesProblem("h e\n#version: 0.2\n", 2), HasSubstr("is not in vocab.json"));
  EXPECT_THAT(MergesProblem("h e\n\u0120t he\n", 2),
              HasSubstr("is neither a single byte nor made by an earlier line"));
}

TEST_F(Gpt2VocabularyTest, NoMergeMakesEndOfText) {
  const std::string end = "<|endoftext|>";
  MergeList merges;
  for (size_t size = 1; size < end.size(); ++size)
    merges.emplace_back(end.substr(0, size), end.substr(size, 1));
  const std::string text = TinyMergesText(merges);
  merges.pop_back();
  folder_.Write("vocab.json", TinyVocabJson(merges));
  EXPECT_THAT(MergesProblem(text, 13), HasSubstr("no text may encode to"));
}

TEST_F(Gpt2VocabularyTest, AHugeFileIsRefused) {
  std::filesystem::resize_file(folder_ / "merges.txt", (64u << 20) + 1);
  EXPECT_THAT(Problem("merges.txt", ""), HasSubstr("has 67108865 bytes"));
}

}  // namespace
}  // namespace hypermoe
