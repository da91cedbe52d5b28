#include "runtime/heartbeat.h"

#include <gtest/gtest.h>

#include "runtime/stillness.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

Heartbeat Made() {
  Heartbeat h;
  h.beat = 12;
  h.rank = 3;
  h.world_size = 8;
  h.host = "node7";
  h.pid = 4711;
  h.time = "2026-11-29T16:00:01Z";
  h.idle = 2.5;
  h.marks = 987654321;
  h.step = 41;
  h.phase = "forward";
  h.collectives = 1234;
  h.collective = 1233;
  h.kind = "all_to_all";
  h.group = "expert";
  h.inside = true;
  return h;
}

TEST(HeartbeatTest, TheFileGivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  const std::string path = folder / "rank_00003";
  Heartbeat read;
  EXPECT_EQ(ReadHeartbeat(path, &read), HeartbeatFound::kNone);
  ASSERT_TRUE(WriteHeartbeat(path, Made()).ok());
  ASSERT_EQ(ReadHeartbeat(path, &read), HeartbeatFound::kRead);
  EXPECT_EQ(HeartbeatText(read), HeartbeatText(Made()));
  EXPECT_EQ(read.rank, 3);
  EXPECT_EQ(read.host, "node7");
  EXPECT_EQ(read.phase, "forward");
  EXPECT_EQ(read.collective, 1233);
  EXPECT_EQ(read.idle, 2.5);
  EXPECT_TRUE(read.inside);
}

TEST(HeartbeatTest, HasOneSizeAndOneWordAField) {
  Heartbeat long_words = Made();
  long_words.host = std::string(300, 'h');
  long_words.phase = "two words\n";
  long_words.kind = "";
  EXPECT_EQ(HeartbeatText(Heartbeat()).size(), kHeartbeatBytes);
  ASSERT_EQ(HeartbeatText(long_words).size(), kHeartbeatBytes);
  const std::optional<Heartbeat> read = ParseHeartbeat(HeartbeatText(long_words));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->host, std::string(64, 'h'));
  EXPECT_EQ(read->phase, "two_words_");
  EXPECT_EQ(read->kind, "-");
}

TEST(HeartbeatTest, HalfOfOneAndHalfOfTheNextIsNone) {
  Heartbeat next = Made();
  next.beat = 13;
  const std::string older = HeartbeatText(Made()), newer = HeartbeatText(next);
  EXPECT_TRUE(ParseHeartbeat(newer).has_value());
  EXPECT_FALSE(ParseHeartbeat(newer.substr(0, 200) + older.substr(200)).has_value());
  EXPECT_FALSE(ParseHeartbeat(older.substr(0, kHeartbeatBytes - 1)).has_value());
  EXPECT_FALSE(ParseHeartbeat(std::string(kHeartbeatBytes, 'x')).has_value());
}

TEST(HeartbeatTest, AnUnreadableFileLeavesTheLastOne) {
  const TemporaryFolder folder;
  Heartbeat last = Made();
  EXPECT_EQ(ReadHeartbeat(folder.Write("rank_00001", "short"), &last), HeartbeatFound::kUnreadable);
  EXPECT_EQ(last.beat, 12);
}

TEST(HeartbeatTest, AFolderThatIsMissingIsAnErrorThatNamesTheFile) {
  const absl::Status status = WriteHeartbeat("/no/such/folder/rank_00000", Made());
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_NE(status.message().find("/no/such/folder/rank_00000"), absl::string_view::npos);
}

TEST(StillnessTest, CountsTheTimeSinceTheLastChange) {
  Stillness still(/*longest_gap=*/3);
  EXPECT_EQ(still.Observe(5, 100), 0);
  EXPECT_EQ(still.Observe(5, 101), 1);
  EXPECT_EQ(still.Observe(5, 103), 3);
  EXPECT_EQ(still.Observe(6, 104), 0);
  EXPECT_EQ(still.Observe(6, 106), 2);
}

// Else a job that was stopped as a whole and goes on would find all its ranks dead.
TEST(StillnessTest, OfATimeWithoutLooksCountsLittle) {
  Stillness still(/*longest_gap=*/3);
  still.Observe(5, 100);
  EXPECT_EQ(still.Observe(5, 1100), 3);
  EXPECT_EQ(still.Observe(5, 1101), 4);
}

}  // namespace
}  // namespace hypermoe
