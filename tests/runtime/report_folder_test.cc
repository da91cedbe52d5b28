#include "runtime/report_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const ReportTable kTable = {{"name", "value"}, {{"a,b", "1"}, {"say \"x\"", "<2>"}}};

ReportFolder Made(const std::string& program = "maker") {
  ReportFolder report("title & more", program);
  report.page().Heading("head");
  report.page().Table(kTable);
  report.Figure("figure", "<svg></svg>\n", "a <caption>");
  report.Csv("table", kTable);
  return report;
}

std::string Refusal(const absl::Status& status) {
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kUsage) << status;
  return std::string(status.message());
}

TEST(ReportFolderTest, HoldsPagePicturesAndTables) {
  const TemporaryFolder folder;
  ASSERT_TRUE(Made().Write(folder / "deep/report").ok());
  EXPECT_EQ(ReadFile(folder / "deep/report/table.csv"),
            "name,value\n\"a,b\",1\n\"say \"\"x\"\"\",<2>\n");
  EXPECT_EQ(ReadFile(folder / "deep/report/figure.svg"), "<svg></svg>\n");
  EXPECT_THAT(ReadFile(folder / "deep/report/index.html"),
              AllOf(HasSubstr("<title>title &amp; more</title>"), HasSubstr("<h2>head</h2>"),
                    HasSubstr("<td>&lt;2&gt;</td>"), HasSubstr("<svg></svg>"),
                    HasSubstr("a &lt;caption&gt;")));
  EXPECT_EQ(fs::directory_entry(folder / "deep/report").is_directory(), true);
}

TEST(ReportFolderTest, ReplacesAnOlderReportAndItsFilesAlone) {
  const TemporaryFolder folder;
  ASSERT_TRUE(Made().Write(folder / "r").ok());
  const std::string page = ReadFile(folder / "r/index.html");
  folder.Write("r/old.svg", "of an older report");
  folder.Write("r/notes.txt", "a user's");
  ASSERT_TRUE(Made().Write(folder / "r").ok());
  EXPECT_FALSE(fs::exists(folder / "r/old.svg"));
  EXPECT_TRUE(fs::exists(folder / "r/notes.txt"));
  EXPECT_EQ(ReadFile(folder / "r/index.html"), page);
}

TEST(ReportFolderTest, RefusesWhatIsNotItsOwn) {
  const TemporaryFolder folder;
  folder.Write("file", "");
  EXPECT_THAT(Refusal(Made().Write(folder / "file")), HasSubstr("is there already"));
  folder.Write("notes.txt", "");
  EXPECT_THAT(Refusal(Made().Write(folder.path())), HasSubstr("not a report of `maker`"));
  ASSERT_TRUE(Made("another").Write(folder / "theirs").ok());
  EXPECT_THAT(Refusal(Made().Write(folder / "theirs")), HasSubstr("not a report of `maker`"));
  fs::create_directories(folder / "step/empty");
  folder.Write("step/manifest.json", "{}");
  EXPECT_THAT(Refusal(Made().Write(folder / "step/empty")), HasSubstr("lies in the checkpoint"));
  EXPECT_TRUE(ReportFolder::Check(folder / "not there", "maker").ok());
}

}  // namespace
}  // namespace hypermoe
