#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>
#include <vector>

#include "runtime/token_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/token_file_bytes.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TokenFileWriterTest : public ::testing::Test {
 protected:
  TemporaryFolder folder_;
};

TEST_F(TokenFileWriterTest, MakesMegatronsLayout) {
  const auto writer = *TokenFileWriter::Create(folder_ / "deep/er/t", 65536);
  const std::vector<int32_t> first = {10}, second = {65535}, third = {0, 300, 7};
  ASSERT_TRUE(writer->Append(first).ok());
  ASSERT_TRUE(writer->Append(second).ok());
  ASSERT_TRUE(writer->EndDocument().ok());
  ASSERT_TRUE(writer->EndDocument().ok());
  ASSERT_TRUE(writer->Append(third).ok());
  ASSERT_TRUE(writer->EndDocument().ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ / "deep/er"), {}), 0);
  ASSERT_TRUE(writer->Finish().ok());
  IndexFields expected;
  expected.documents = 4;
  expected.document_index = {0, 1, 2, 3};
  EXPECT_EQ(ReadFile(folder_ / "deep/er/t.idx"), expected.Bytes());
  EXPECT_EQ(ReadFile(folder_ / "deep/er/t.bin"), kFiveIds);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ / "deep/er"), {}), 2);
}

TEST_F(TokenFileWriterTest, ADocumentTooLongForOneSequenceStaysOneDocument) {
  const auto writer = *TokenFileWriter::Create(folder_ / "t", 100000, 3);
  for (const std::vector<int32_t>& document : std::vector<std::vector<int32_t>>{
           {1}, {2, 3, 4, 5, 6, 7, 8}, {}, {9, 10, 11}, {12, 13, 14, 15}}) {
    ASSERT_TRUE(writer->Append(document).ok());
    ASSERT_TRUE(writer->EndDocument().ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  IndexFields expected;
  expected.dtype = 4;
  expected.sequences = 8;
  expected.documents = 6;
  expected.lengths = {1, 3, 3, 1, 0, 3, 3, 1};
  expected.pointers = {0, 4, 16, 28, 32, 32, 44, 56};
  expected.document_index = {0, 1, 4, 5, 6, 8};
  EXPECT_EQ(ReadFile(folder_ / "t.idx"), expected.Bytes());
  const auto file = TokenFile::Open(folder_ / "t");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->num_documents(), 5);
  EXPECT_THAT(Ids(**file, 5, 3), ElementsAre(6, 7, 8));
}

TEST_F(TokenFileWriterTest, ManyDocumentsCrossTheWritersBuffers) {
  constexpr int kDocuments = 300000;
  const auto writer = *TokenFileWriter::Create(folder_ / "t", 257);
  for (int32_t i = 0; i < kDocuments; ++i) {
    const std::vector<int32_t> document(static_cast<size_t>(i % 4), i % 257);
    ASSERT_TRUE(writer->Append(document).ok());
    ASSERT_TRUE(writer->EndDocument().ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  const auto file = TokenFile::Open(folder_ / "t");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->num_documents(), kDocuments);
  EXPECT_EQ((*file)->num_tokens(), kDocuments / 4 * 6);
  EXPECT_THAT(Ids(**file, kDocuments / 4 * 6 - 3, 3), ::testing::Each((kDocuments - 1) % 257));
}

TEST_F(TokenFileWriterTest, AnUnfinishedWriterLeavesNothingAndOldFilesAlone) {
  const std::vector<int32_t> ids = {1, 2};
  {
    const auto writer = *TokenFileWriter::Create(folder_ / "t", 257);
    ASSERT_TRUE(writer->Append(ids).ok());
  }
  EXPECT_EQ(folder_.size(), 0);
  folder_.Write("t.idx", "old idx");
  folder_.Write("t.bin", "old bin");
  {
    const auto writer = *TokenFileWriter::Create(folder_ / "t", 257);
    ASSERT_TRUE(writer->Append(ids).ok());
    ASSERT_TRUE(writer->EndDocument().ok());
  }
  EXPECT_EQ(ReadFile(folder_ / "t.idx"), "old idx");
  EXPECT_EQ(ReadFile(folder_ / "t.bin"), "old bin");
  EXPECT_EQ(folder_.size(), 2);
}

TEST_F(TokenFileWriterTest, AnOldIndexNeverDescribesNewIds) {
  folder_.Write("t.idx", IndexFields().Bytes());
  folder_.Write("t.bin", kFiveIds);
  const auto writer = *TokenFileWriter::Create(folder_ / "t", 257);
  // Stands for whatever ends the process between the two names.
  std::filesystem::remove(folder_ / "t.bin");
  std::filesystem::create_directory(folder_ / "t.bin");
  EXPECT_EQ(ExitCodeOf(writer->Finish()), ExitCode::kIo);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "t.idx"));
}

TEST_F(TokenFileWriterTest, AnIdTheTokenizerDoesNotHaveIsADefect) {
  const auto writer = *TokenFileWriter::Create(folder_ / "t", 257);
  const std::vector<int32_t> large = {257}, negative = {-1};
  EXPECT_EQ(ExitCodeOf(writer->Append(large)), ExitCode::kInternal);
  EXPECT_EQ(ExitCodeOf(writer->Append(negative)), ExitCode::kInternal);
}

TEST_F(TokenFileWriterTest, AFolderThatCannotBeMadeIsAnIoError) {
  folder_.Write("file", "");
  const auto below_file = TokenFileWriter::Create(folder_ / "file/t", 257);
  EXPECT_EQ(ExitCodeOf(below_file.status()), ExitCode::kIo);
  EXPECT_THAT(std::string(below_file.status().message()), HasSubstr(folder_ / "file"));
  std::filesystem::create_directory(folder_ / "t.idx");
  EXPECT_EQ(ExitCodeOf(TokenFileWriter::Create(folder_ / "t", 257).status()), ExitCode::kIo);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "t.bin"));
}

}  // namespace
}  // namespace hypermoe
