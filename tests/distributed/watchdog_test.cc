#include "runtime/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/shared_folder.h"

namespace hypermoe {
namespace {

constexpr double kPatientHang = 100;

TEST(WatchdogTest, EveryRankHasAHeartbeatUntilTheEnd) {
  Communicator& world = *World();
  const SharedFolder folder;
  const std::string run = folder / "run";
  for (int i = 0; i < 20; ++i) {  // one after the other in the same folder
    ASSERT_EQ(Watchdog::Start({run, "here", kPatientHang}, world).status(), absl::OkStatus());
  }
  absl::StatusOr<std::unique_ptr<Watchdog>> watchdog =
      Watchdog::Start({run, "here", kPatientHang}, world);
  ASSERT_TRUE(watchdog.ok()) << watchdog.status();
  for (int rank = 0; rank < world.size(); ++rank) {
    Heartbeat heartbeat;
    EXPECT_EQ(ReadHeartbeat(HeartbeatPath(run, rank), &heartbeat), HeartbeatFound::kRead);
    EXPECT_EQ(heartbeat.rank, rank);
    EXPECT_EQ(heartbeat.world_size, world.size());
  }
  world.Barrier();
  watchdog->reset();
  world.Barrier();
  EXPECT_FALSE(std::filesystem::exists(run));
}

TEST(WatchdogTest, AFolderThatRanksDoNotShareIsAnErrorOnAllOfThem) {
  Communicator& world = *World();
  if (world.size() == 1) GTEST_SKIP() << "one rank shares with nobody";
  const SharedFolder folder;
  const bool last = world.rank() == world.size() - 1;
  const absl::Status status =
      Watchdog::Start({folder / (last ? "theirs" : "ours"), "here", kPatientHang}, world).status();
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("theirs/heartbeats/rank_"));
  world.Barrier();
}

}  // namespace
}  // namespace hypermoe
