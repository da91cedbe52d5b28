#include "runtime/hang_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hypermoe {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr double kHang = 30;

// A rank that lives and has made no progress for `idle` seconds.
RankState Alive(double idle, bool inside, int64_t collectives = 100) {
  RankState state;
  state.heartbeat = Heartbeat();
  state.heartbeat->host = "node1";
  state.heartbeat->pid = 77;
  state.heartbeat->idle = idle;
  state.heartbeat->inside = inside;
  state.heartbeat->step = 41;
  state.heartbeat->phase = "forward";
  state.heartbeat->collectives = state.heartbeat->collective = collectives;
  state.heartbeat->kind = "all_to_all";
  state.heartbeat->group = "expert";
  return state;
}

RankState Silent(double seconds) {
  RankState state = Alive(0, false);
  state.silent = seconds;
  return state;
}

TEST(HangReportTest, TellsConditionsApart) {
  EXPECT_EQ(ConditionOf(RankState(), kHang), RankCondition::kUnknown);
  EXPECT_EQ(ConditionOf(Alive(9, false), kHang), RankCondition::kWorking);
  EXPECT_EQ(ConditionOf(Alive(9, true), kHang), RankCondition::kWorking);
  EXPECT_EQ(ConditionOf(Alive(10, false), kHang), RankCondition::kStuck);
  EXPECT_EQ(ConditionOf(Alive(10, true), kHang), RankCondition::kWaiting);
  EXPECT_EQ(ConditionOf(Silent(9), kHang), RankCondition::kWorking);
  EXPECT_EQ(ConditionOf(Silent(10), kHang), RankCondition::kSilent);
}

TEST(HangReportTest, ARankThatIsStuckEndsTheJobInTime) {
  EXPECT_FALSE(JobHangs({Alive(29.9, false), Alive(29, true)}, 0, kHang));
  EXPECT_TRUE(JobHangs({Alive(30, false), Alive(29, true)}, 0, kHang));
}

TEST(HangReportTest, ARankThatIsSilentEndsTheJobInTime) {
  EXPECT_FALSE(JobHangs({Alive(0, false), Silent(29.9)}, 0, kHang));
  EXPECT_TRUE(JobHangs({Alive(0, false), Silent(30)}, 0, kHang));
}

// All wait for rank 0 to write a large checkpoint.
TEST(HangReportTest, WaitingForARankThatWorksIsNoHang) {
  EXPECT_FALSE(JobHangs({Alive(1, false), Alive(500, true)}, 1, kHang));
  // One long write to disk: rank 0 has time left, and its own watchdog.
  EXPECT_FALSE(JobHangs({Alive(25, false), Alive(500, true)}, 1, kHang));
  EXPECT_TRUE(JobHangs({Alive(30, false), Alive(500, true)}, 1, kHang));
}

TEST(HangReportTest, ACollectiveInWhichAllWaitHasADeadline) {
  EXPECT_FALSE(JobHangs({Alive(29, true), Alive(29.5, true)}, 1, kHang));
  EXPECT_TRUE(JobHangs({Alive(29, true), Alive(30, true)}, 1, kHang));
  EXPECT_FALSE(JobHangs({Alive(9, true), Alive(30, true)}, 1, kHang)) << "rank 0 came just now";
  EXPECT_TRUE(JobHangs({RankState(), Alive(30, true)}, 1, kHang)) << "nobody knows rank 0";
}

TEST(HangReportTest, NamesTheSilentRankAndNotThoseThatWait) {
  const HangReport report = DescribeHang({Alive(28, true), Silent(30.2), Alive(28, true)}, kHang);
  EXPECT_THAT(report.headline, StartsWith("rank 1 hangs: no sign of life"));
  EXPECT_THAT(
      report.headline,
      HasSubstr("for 30.2 s and more, so stopped, or its machine is gone; last seen in step 41, "
                "phase forward, after collective 100 "
                "(all_to_all of group 'expert') (node1, pid 77)"));
  ASSERT_EQ(report.ranks.size(), 3);
  EXPECT_THAT(report.ranks[0], StartsWith("rank 0: waits for 28.0 s; step 41"));
  EXPECT_THAT(report.ranks[1], StartsWith("rank 1: silent for 30.2 s; "));
}

TEST(HangReportTest, NamesTheStuckRankWithItsPhase) {
  const HangReport report = DescribeHang({Alive(28, true), Alive(30, false)}, kHang);
  EXPECT_THAT(report.headline, StartsWith("rank 1 hangs: alive, but without progress for 30.0 s"));
  EXPECT_THAT(report.headline, HasSubstr("step 41, phase forward"));
}

TEST(HangReportTest, NamesSeveral) {
  std::vector<RankState> ranks(12, Silent(31));
  ranks[0] = Alive(3, true);
  EXPECT_THAT(DescribeHang(ranks, kHang).headline,
              StartsWith("ranks 1, 2, 3, 4, 5, 6, 7, 8 and 3 more hang: no sign of life"));
}

TEST(HangReportTest, WhereAllWaitNamesWhoIsBehind) {
  const HangReport behind =
      DescribeHang({Alive(30, true, 100), Alive(30, true, 95), Alive(30, true, 96)}, kHang);
  EXPECT_THAT(behind.headline, StartsWith("the job hangs: all ranks wait in collectives"));
  EXPECT_THAT(behind.headline, HasSubstr("which have begun number 100: rank 1; step 41"));
  // As far ahead as backward may start reductions.
  const HangReport together = DescribeHang({Alive(30, true, 96), Alive(30, true, 100)}, kHang);
  EXPECT_THAT(together.headline, HasSubstr("all of them near number 100: the network"));
  EXPECT_THAT(together.headline, Not(HasSubstr("behind")));
}

TEST(HangReportTest, SaysWhatItDoesNotKnow) {
  RankState fresh = Alive(30, false, 0);
  fresh.heartbeat->step = 0;
  fresh.heartbeat->phase = "load";
  const HangReport report = DescribeHang({RankState(), fresh}, kHang);
  EXPECT_THAT(report.ranks[0], HasSubstr("no heartbeat"));
  EXPECT_THAT(report.headline, HasSubstr("no step yet, phase load, no collective yet"));
}

}  // namespace
}  // namespace hypermoe
