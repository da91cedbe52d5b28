#include "runtime/input_texts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class InputTextsTest : public testing::Test {
 protected:
  std::vector<std::string> Read(const std::string& name, const std::string& content) {
    const auto texts = ReadTexts(folder_.Write(name, content));
    EXPECT_TRUE(texts.ok()) << texts.status();
    return texts.ok() ? *texts : std::vector<std::string>();
  }
  std::string Error(const std::string& name, const std::string& content) {
    const absl::Status status = ReadTexts(folder_.Write(name, content)).status();
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kBadData);
    return std::string(status.message());
  }
  TemporaryFolder folder_;
};

TEST_F(InputTextsTest, EveryLineIsOne) {
  EXPECT_THAT(Read("a.txt", "one\n\ntwo words\r\nthr\u00e9e\n"),
              ElementsAre("one", "", "two words", "thr\u00e9e"));
  EXPECT_THAT(Read("a.txt", "no end"), ElementsAre("no end"));
  EXPECT_THAT(Read("a.txt", "\n"), ElementsAre(""));
  // More than a piece of the reader.
  const std::string line(700000, 'x');
  EXPECT_THAT(Read("a.txt", line + "\n" + line + "\n" + line), ElementsAre(line, line, line));
}

TEST_F(InputTextsTest, EveryObjectIsOne) {
  EXPECT_THAT(Read("a.jsonl",
                   "{\"text\": \"one\", \"id\": 1}\n\n{\"id\": 2, \"text\": \"two\\nlines\"}\n"
                   "{\"text\": \"\"}"),
              ElementsAre("one", "two\nlines", ""));
}

TEST_F(InputTextsTest, WhatIsNoTextIsAnError) {
  EXPECT_THAT(Error("a.jsonl", "{\"text\": \"one\"}\n{\"txt\": \"two\"}\n"),
              AllOf(HasSubstr("a.jsonl:2:"), HasSubstr("'text'"), Not(HasSubstr("--on_bad_text"))));
  EXPECT_THAT(Error("a.txt", "one\n\xff\n"), HasSubstr("a.txt:2:1"));
  EXPECT_THAT(Error("a.txt", ""), HasSubstr("has no text"));
  EXPECT_THAT(Error("a.jsonl", "\n"), HasSubstr("has no text"));
  EXPECT_EQ(ExitCodeOf(ReadTexts(folder_ / "nothing").status()), ExitCode::kIo);
}

}  // namespace
}  // namespace hypermoe
