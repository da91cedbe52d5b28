#include "runtime/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "parallel/progress_marks.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::ExitedWithCode;

constexpr double kHang = 0.5;  // seconds
// No machine is so loaded that a mark every 20 ms comes this late.
constexpr double kPatientHang = 20;
constexpr auto kForEver = std::chrono::seconds(60);

std::unique_ptr<Watchdog> StartIn(const std::string& run_dir, double hang_seconds) {
  const auto world = NewSelfCommunicator("world");
  absl::StatusOr<std::unique_ptr<Watchdog>> watchdog =
      Watchdog::Start({run_dir, "here", hang_seconds}, *world);
  EXPECT_TRUE(watchdog.ok()) << watchdog.status();
  return *std::move(watchdog);
}

class WatchdogDeathTest : public testing::Test {
 protected:
  WatchdogDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  const TemporaryFolder folder_;
};

TEST_F(WatchdogDeathTest, EndsAProcessThatIsStuckAndSaysWhere) {
  EXPECT_EXIT(
      {
        const auto watchdog = StartIn(folder_ / "run", kHang);
        MarkStep(41);
        MarkPhase("forward");
        std::this_thread::sleep_for(kForEver);
      },
      ExitedWithCode(72),
      "rank 0 hangs: alive, but without progress for .*step 41, phase forward.*\n  rank 0: stuck");
}

// The switch that breaks the mechanism: with 0 nothing watches.
TEST_F(WatchdogDeathTest, EndsNothingWhereItIsOff) {
  EXPECT_EQ(StartIn(folder_ / "run", 0), nullptr);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
}

TEST_F(WatchdogDeathTest, EndsAProcessWhoseTransportHasFailedAndThatDoesNotEndItself) {
  EXPECT_EXIT(
      {
        class Failed : public Communicator {
         public:
          Failed() : Communicator("expert", 0, 1) {}
          void CheckTransport() override { Fail("CheckTransport", "a cable was pulled"); }
          std::unique_ptr<Communicator> Split(const std::string&, int, int) override { return {}; }

         protected:
          void DoAllReduceSum(const at::Tensor&) override {}
          void DoAllReduceMax(const at::Tensor&) override {}
          std::unique_ptr<PendingCollective> DoStartReduction(const at::Tensor&, bool) override {
            return {};
          }
          void DoAllGatherParts(const at::Tensor&) override {}
          void DoBroadcast(const at::Tensor&, int) override {}
          std::unique_ptr<PendingCollective> DoStartAllToAll(const void*,
                                                             const std::vector<int64_t>&, void*,
                                                             const std::vector<int64_t>&,
                                                             int64_t) override {
            return {};
          }
          std::vector<std::string> DoAllGatherText(const std::string&) override { return {}; }
          void DoBarrier() override {}
        };
        const auto watchdog = StartIn(folder_ / "run", 4 * kHang);
        ProcessMesh mesh;
        mesh.world = mesh.expert_data = NewSelfCommunicator("world");
        mesh.expert = std::make_shared<Failed>();
        watchdog->WatchTransport(mesh);
        for (;;) {
          MarkProgress();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      },
      ExitedWithCode(71), "error: rank 0: CheckTransport in group 'expert' .*a cable was pulled");
}

TEST_F(WatchdogDeathTest, TheLastResortNeedsNoFiles) {
  EXPECT_EXIT(
      {
        const ProgressDeadline deadline(kHang, /*rank=*/0);
        MarkPhase("save");
        std::this_thread::sleep_for(kForEver);
      },
      ExitedWithCode(72), "error: rank 0: no progress for .* in phase save");
}

TEST(WatchdogTest, TheLastResortWaitsForLeave) {
  const ProgressDeadline deadline(0.05, /*rank=*/0, [] { return false; });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
}

TEST(WatchdogTest, LeavesNothingBehindWhereNothingWasMade) {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  auto watchdog = StartIn(run, kPatientHang);
  EXPECT_TRUE(std::filesystem::exists(HeartbeatPath(run, 0)));
  watchdog.reset();
  EXPECT_FALSE(std::filesystem::exists(run));

  watchdog = StartIn(run, kPatientHang);
  std::filesystem::create_directory(run + "/checkpoints");
  watchdog.reset();
  EXPECT_TRUE(std::filesystem::exists(run + "/checkpoints"));
  EXPECT_FALSE(std::filesystem::exists(HeartbeatFolder(run)));
}

// A job that was killed leaves its files; they are no ranks, and its claim to report is void.
TEST(WatchdogTest, RemovesWhatAnEarlierJobHasLeft) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(HeartbeatFolder(folder.path()));
  folder.Write("heartbeats/rank_00007", "old");
  folder.Write("heartbeats/hang_claim", "");
  const auto watchdog = StartIn(folder.path(), kPatientHang);
  EXPECT_FALSE(std::filesystem::exists(HeartbeatPath(folder.path(), 7)));
  EXPECT_FALSE(std::filesystem::exists(folder / "heartbeats/hang_claim"));
}

TEST(WatchdogTest, KeepsTheHeartbeatFresh) {
  const TemporaryFolder folder;
  const auto watchdog = StartIn(folder.path(), kPatientHang);
  MarkPhase("backward");
  Heartbeat read;
  const auto until = std::chrono::steady_clock::now() + kForEver;
  while (read.beat < 2 || read.phase != "backward") {
    ASSERT_LT(std::chrono::steady_clock::now(), until);
    ReadHeartbeat(HeartbeatPath(folder.path(), 0), &read);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    MarkProgress();
  }
  EXPECT_EQ(read.host, "here");
  EXPECT_EQ(read.pid, getpid());
}

TEST(WatchdogTest, AFolderThatCannotBeMadeIsAnError) {
  const TemporaryFolder folder;
  const auto world = NewSelfCommunicator("world");
  const auto watchdog =
      Watchdog::Start({folder.Write("file", "") + "/run", "here", kPatientHang}, *world);
  EXPECT_EQ(ExitCodeOf(watchdog.status()), ExitCode::kIo);
}

}  // namespace
}  // namespace hypermoe
