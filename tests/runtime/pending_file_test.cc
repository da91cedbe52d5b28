#include "runtime/pending_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "runtime/file_util.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

// File systems without unnamed files take the other way.
TEST(PendingFileTest, BothWaysPublishWholeOrNothing) {
  for (const bool allow_unnamed : {true, false}) {
    const TemporaryFolder folder;
    {
      const auto file = *PendingFile::Create(folder / "f", allow_unnamed);
      ASSERT_TRUE(file->Append("abc", 3).ok());
      ASSERT_TRUE(file->Sync().ok());
      EXPECT_EQ(folder.size(), allow_unnamed ? 0 : 1);
    }
    EXPECT_EQ(folder.size(), 0);
    folder.Write("f", "old");
    const auto file = *PendingFile::Create(folder / "f", allow_unnamed);
    const std::string large(3 << 20, 'x');
    ASSERT_TRUE(file->Append("abc", 3).ok());
    ASSERT_TRUE(file->Append(large.data(), large.size()).ok());
    ASSERT_TRUE(file->WriteAt(1, "B", 1).ok());
    char back[3];
    ASSERT_TRUE(file->ReadAt(0, back, 3).ok());
    EXPECT_EQ(std::string(back, 3), "aBc");
    EXPECT_EQ(ExitCodeOf(file->ReadAt(file->size(), back, 1)), ExitCode::kIo);
    ASSERT_TRUE(file->Sync().ok());
    EXPECT_EQ(ReadFile(folder / "f"), "old");
    ASSERT_TRUE(file->Publish().ok());
    EXPECT_EQ(ReadFile(folder / "f"), "aBc" + large);
    EXPECT_EQ(folder.size(), 1);
  }
}

TEST(PendingFileTest, IsForTheUserAloneUntilItIsSynced) {
  for (const mode_t mask : {0022, 0077, 0000}) {
    const TemporaryFolder folder;
    const mode_t old = umask(mask);
    EXPECT_EQ(CurrentUmask(), mask);
    const auto file = *PendingFile::Create(folder / "f", /*allow_unnamed=*/false);
    struct stat info;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 0777, 0600u);
    }
    EXPECT_EQ(folder.size(), 1);
    EXPECT_TRUE(file->Sync().ok());
    EXPECT_TRUE(file->Publish().ok());
    umask(old);
    ASSERT_EQ(stat((folder / "f").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, mode_t{0666} & ~mask);
  }
}

}  // namespace
}  // namespace hypermoe
