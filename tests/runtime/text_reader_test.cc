#include "runtime/text_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  std::vector<std::string> documents;
  size_t largest_piece = 0;
  int64_t skipped = 0;
  absl::Status status;
};

Outcome ReadAll(const std::string& path, const TextReaderOptions& options = {}) {
  Outcome outcome;
  const auto reader = TextReader::Open(path, options);
  if (!reader.ok()) {
    outcome.status = reader.status();
    return outcome;
  }
  std::string document;
  while (true) {
    const auto piece = (*reader)->Next();
    outcome.skipped = (*reader)->skipped();
    outcome.status = piece.status();
    if (!piece.ok() || !piece->has_value()) return outcome;
    outcome.largest_piece = std::max(outcome.largest_piece, (*piece)->text.size());
    document += (*piece)->text;
    if (!(*piece)->ends_document) continue;
    outcome.documents.push_back(document);
    document.clear();
  }
}

class TextReaderTest : public ::testing::Test {
 protected:
  void ExpectBad(const std::string& name, const std::string& content, const std::string& position,
                 const std::string& what, TextReaderOptions options = {}) {
    const std::string path = folder_.Write(name, content);
    const Outcome outcome = ReadAll(path, options);
    EXPECT_EQ(ExitCodeOf(outcome.status), ExitCode::kBadData);
    EXPECT_THAT(std::string(outcome.status.message()), StartsWith(path + position + ": "));
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr(what));
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("--on_bad_text=skip"));
  }

  TemporaryFolder folder_;
};

TEST_F(TextReaderTest, APlainFileIsOneDocumentHoweverItIsCut) {
  const std::string text =
      "first line\n\nz\xC3\xA4hlt \xF0\x9F\x98\x80\xF0\x9F\x98\x80\xF0\x9F\x98\x80\r\nno line end";
  const std::string path = folder_.Write("a.txt", text);
  for (size_t piece_bytes = 8; piece_bytes < 60; ++piece_bytes) {
    TextReaderOptions options;
    options.piece_bytes = piece_bytes;
    const Outcome outcome = ReadAll(path, options);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_THAT(outcome.documents, ElementsAre(text));
    EXPECT_LE(outcome.largest_piece, 2 * piece_bytes);
  }
}

TEST_F(TextReaderTest, BadBytesInPlainTextAreFoundHoweverItIsCut) {
  for (size_t piece_bytes = 8; piece_bytes < 60; ++piece_bytes) {
    TextReaderOptions options;
    options.piece_bytes = piece_bytes;
    ExpectBad("a.txt", "first line\nsecond l\xC3\xA4ne \xF0\x9F\x98\xFF more and more\nthird\n",
              ":2:14", "byte 0xF0", options);
    ExpectBad("b.txt", "one\ntwo \xE2\x82", ":2:5", "byte 0xE2", options);
  }
}

TEST_F(TextReaderTest, SkippingDropsBadLinesOfPlainText) {
  TextReaderOptions options;
  options.skip_bad = true;
  const Outcome outcome =
      ReadAll(folder_.Write("a.txt", "one\ntwo \xFF\nthree\n\xC0\xAF\nfour"), options);
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_THAT(outcome.documents, ElementsAre("one\nthree\nfour"));
  EXPECT_EQ(outcome.skipped, 2);
}

TEST_F(TextReaderTest, EmptyFilesHaveNoDocument) {
  EXPECT_THAT(ReadAll(folder_.Write("a.txt", "")).documents, ElementsAre());
  EXPECT_THAT(ReadAll(folder_.Write("a.jsonl", "")).documents, ElementsAre());
  EXPECT_THAT(ReadAll(folder_.Write("b.jsonl", "\n \r\n\n")).documents, ElementsAre());
}

TEST_F(TextReaderTest, EachJsonLineIsADocument) {
  const std::string path = folder_.Write(
      "a.jsonl",
      "{\"text\": \"one\\n\\u00e4\"}\n\n{\"id\": 3, \"meta\": {\"text\": 5}, \"text\": \"two\"}\r\n"
      "{\"text\": \"\"}\n{\"text\": 1, \"text\": \"last of two\"}");
  const Outcome outcome = ReadAll(path);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.documents, ElementsAre("one\n\xC3\xA4", "two", "", "last of two"));
  TextReaderOptions options;
  options.piece_bytes = 4;
  EXPECT_EQ(ReadAll(path, options).documents, outcome.documents);
  EXPECT_LE(ReadAll(path, options).largest_piece, 4u);
}

TEST_F(TextReaderTest, MalformedJsonLinesNameLineAndColumn) {
  ExpectBad("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\n", ":2:12", "not valid JSON");
  ExpectBad("a.jsonl", "{\"text\": \"a\"} x\n", ":1:15", "not valid JSON");
  ExpectBad("a.jsonl", "{\"text\": \"a\xFF\"}\n", ":1:12", "byte 0xFF");
  ExpectBad("a.jsonl", "{\"text\": \"\\ud800\"}\n", ":1:17", "not valid JSON");
  ExpectBad("a.jsonl", "\n{\"txt\": \"a\"}\n", ":2:1", "no field 'text'");
  ExpectBad("a.jsonl", "{\"a\": {\"text\": \"a\"}}\n", ":1:1", "no field 'text'");
  ExpectBad("a.jsonl", "{\"text\": [\"a\"]}\n", ":1:1", "'text' is not a string");
  ExpectBad("a.jsonl", "{\"text\": null}\n", ":1:1", "'text' is not a string");
  ExpectBad("a.jsonl", "[\"text\", \"a\"]\n", ":1:1", "not a JSON object");
  TextReaderOptions options;
  options.max_line_bytes = 20;
  ExpectBad("a.jsonl", "{\"text\": \"12345678\"}\n{\"text\": \"123456789\"}\n", ":2:21",
            "longer than 20 bytes", options);
}

TEST_F(TextReaderTest, SkippingDropsBadJsonLines) {
  TextReaderOptions options;
  options.skip_bad = true;
  options.text_field = "body";
  options.max_line_bytes = 40;
  const Outcome outcome = ReadAll(
      folder_.Write("a.jsonl",
                    "{\"body\": \"a\"}\n{\"body\n{\"text\": \"b\"}\n{\"body\": \"\xFF\"}\n" +
                        std::string(3000000, '{') + "\n{\"body\": \"c\"}"),
      options);
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_THAT(outcome.documents, ElementsAre("a", "c"));
  EXPECT_EQ(outcome.skipped, 4);
}

TEST_F(TextReaderTest, DeepJsonDoesNotOverflowTheStack) {
  ExpectBad("a.jsonl", "{\"text\": " + std::string(1000000, '['), ":1:1000010", "not valid JSON");
}

TEST_F(TextReaderTest, FilesThatCannotBeReadAreIoErrors) {
  for (const std::string name : {"none.txt", "none.jsonl", ""}) {
    EXPECT_EQ(ExitCodeOf(ReadAll(folder_ / name).status), ExitCode::kIo) << name;
  }
}

}  // namespace
}  // namespace hypermoe
