#include "runtime/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <system_error>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "tests/support/token_file_bytes.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using std::string_literals::operator""s;

class TokenFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const TokenFile>> OpenBytes(const std::string& idx,
                                                             const std::string& bin) {
    folder_.Write("t.idx", idx);
    folder_.Write("t.bin", bin);
    return TokenFile::Open(folder_ / "t");
  }

  void ExpectRefused(const IndexFields& fields, const std::string& what,
                     const std::string& bin = kFiveIds) {
    const auto file = OpenBytes(fields.Bytes(), bin);
    EXPECT_EQ(ExitCodeOf(file.status()), ExitCode::kBadData) << what;
    EXPECT_THAT(std::string(file.status().message()), AllOf(HasSubstr("t.idx"), HasSubstr(what)));
  }

  TemporaryFolder folder_;
};

TEST_F(TokenFileTest, ReadsAFileOfMegatronsLayout) {
  const auto file = OpenBytes(IndexFields().Bytes(), kFiveIds);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->num_tokens(), 5);
  EXPECT_EQ((*file)->num_documents(), 2);
  EXPECT_THAT(Ids(**file, 0, 5), ElementsAre(10, 65535, 0, 300, 7));
  EXPECT_THAT(Ids(**file, 2, 2), ElementsAre(0, 300));
}

TEST_F(TokenFileTest, ReadsEveryIntegerDtype) {
  for (const auto& [code, bytes, first] :
       std::vector<std::tuple<int, int, int64_t>>{{1, 1, 200},
                                                  {2, 1, -1},
                                                  {3, 2, -300},
                                                  {4, 4, 70000},
                                                  {5, 8, int64_t{1} << 40},
                                                  {8, 2, 65535}}) {
    IndexFields fields;
    fields.dtype = code;
    fields.sequences = 1;
    fields.documents = 2;
    fields.lengths = {2};
    fields.pointers = {0};
    fields.document_index = {0, 1};
    const auto file = OpenBytes(fields.Bytes(), Le(bytes, first) + Le(bytes, 5));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_THAT(Ids(**file, 0, 2), ElementsAre(first, 5));
  }
}

TEST_F(TokenFileTest, RefusesEveryFieldThatDoesNotFit) {
  const auto with = [](auto change) {
    IndexFields fields;
    change(fields);
    return fields;
  };
  ExpectRefused(with([](auto& f) { f.magic = "MMIDIDX\0\1"s; }), "magic");
  ExpectRefused(with([](auto& f) { f.version = 2; }), "version is 2");
  ExpectRefused(with([](auto& f) { f.dtype = 7; }), "dtype code is 7");
  ExpectRefused(with([](auto& f) { f.dtype = 0; }), "dtype code is 0");
  ExpectRefused(with([](auto& f) { f.sequences = 4; }), "4 sequences");
  ExpectRefused(with([](auto& f) { f.sequences = -1; }), "18446744073709551615 sequences");
  // Wraps to the right size in 64 bits.
  ExpectRefused(with([](auto& f) { f.documents += int64_t{1} << 61; }), "another size");
  ExpectRefused(with([](auto& f) { f.tail = "x"; }), "another size");
  ExpectRefused(with([](auto& f) { f.lengths = {2, -1, 4}; }), "sequence 1 has length -1");
  ExpectRefused(with([](auto& f) { f.lengths = {2, 0, 4}; }), "sequence 2 ends at byte 12");
  ExpectRefused(with([](auto& f) {
                  f.lengths = {2, 0, 2};
                }),
                "its sequences have 8 bytes, but the .bin file has 10");
  ExpectRefused(with([](auto& f) {
                  f.pointers = {0, 4, 5};
                }),
                "sequence 2 begins at byte 5, expected 4");
  ExpectRefused(with([](auto& f) { f.pointers = {0, -4, 4}; }), "sequence 1 begins at byte -4");
  ExpectRefused(with([](auto& f) {
                  f.document_index = {1, 1, 3};
                }),
                "entry 0 of the document index is 1, expected 0");
  ExpectRefused(with([](auto& f) {
                  f.document_index = {0, 4, 3};
                }),
                "entry 2 of the document index is 3");
  ExpectRefused(with([](auto& f) {
                  f.document_index = {0, 1, 2};
                }),
                "ends at sequence 2, expected 3");
  ExpectRefused(with([](auto& f) {
                  f.sequences = f.documents = 0;
                  f.lengths = f.pointers = f.document_index = {};
                }),
                "document index is empty", "");
  ExpectRefused(IndexFields(), "but the .bin file has 9", kFiveIds.substr(0, 9));
}

TEST_F(TokenFileTest, EveryTruncationOfTheIndexIsRefused) {
  const std::string whole = IndexFields().Bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(ExitCodeOf(OpenBytes(whole.substr(0, size), kFiveIds).status()), ExitCode::kBadData)
        << size;
  }
}

TEST_F(TokenFileTest, MissingFilesAreIoErrorsThatSayWhatToDo) {
  const auto missing = TokenFile::Open(folder_ / "none");
  EXPECT_EQ(ExitCodeOf(missing.status()), ExitCode::kIo);
  EXPECT_THAT(std::string(missing.status().message()),
              AllOf(HasSubstr("none.idx"), HasSubstr("hypermoe prepare")));
  folder_.Write("t.idx", IndexFields().Bytes());
  const auto no_bin = TokenFile::Open(folder_ / "t");
  EXPECT_EQ(ExitCodeOf(no_bin.status()), ExitCode::kIo);
  EXPECT_THAT(std::string(no_bin.status().message()), HasSubstr("t.bin"));
  const auto with_ending = TokenFile::Open(folder_ / "t.bin");
  EXPECT_THAT(std::string(with_ending.status().message()), HasSubstr("without its ending"));
}

TEST_F(TokenFileTest, CheckIdsNamesTheFirstIdOutside) {
  const auto file = *OpenBytes(IndexFields().Bytes(), kFiveIds);
  EXPECT_TRUE(file->CheckIds(65536).ok());
  EXPECT_THAT(std::string(file->CheckIds(65535).message()),
              HasSubstr("token 1 is id 65535, but ids must be 0 to 65534"));
  EXPECT_EQ(ExitCodeOf(file->CheckIds(300)), ExitCode::kBadData);
  IndexFields signed_fields;
  signed_fields.dtype = 3;
  EXPECT_THAT(std::string((*OpenBytes(signed_fields.Bytes(), kFiveIds))->CheckIds(65536).message()),
              HasSubstr("token 1 is id -1"));
}

TEST_F(TokenFileTest, TheFingerprintChangesWithEveryByte) {
  const std::string whole = (*OpenBytes(IndexFields().Bytes(), kFiveIds))->fingerprint();
  EXPECT_THAT(whole, ::testing::MatchesRegex("5:[0-9a-f]{32}"));
  EXPECT_EQ((*OpenBytes(IndexFields().Bytes(), kFiveIds))->fingerprint(), whole);
  for (size_t i = 0; i < kFiveIds.size(); ++i) {
    std::string changed = kFiveIds;
    changed[i] ^= 1;
    EXPECT_NE((*OpenBytes(IndexFields().Bytes(), changed))->fingerprint(), whole);
  }
  IndexFields other_documents;
  other_documents.document_index = {0, 2, 3};
  EXPECT_NE((*OpenBytes(other_documents.Bytes(), kFiveIds))->fingerprint(), whole);
}

TEST_F(TokenFileTest, AFileCutShortWhileInUseIsAnErrorAndNotACrash) {
  const auto file = *OpenBytes(IndexFields().Bytes(), kFiveIds);
  std::filesystem::resize_file(folder_ / "t.bin", 6);
  EXPECT_THAT(Ids(*file, 0, 3), ElementsAre(10, 65535, 0));
  EXPECT_THROW(Ids(*file, 0, 4), std::system_error);
}

}  // namespace
}  // namespace hypermoe
