#include "runtime/stop_request.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "parallel/steady_seconds.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

TEST(StopRequestTest, RemembersTheFirstSourceThatAsks) {
  std::string first, second;
  StopRequest request({[&] { return first; }, [&] { return second; }});
  EXPECT_FALSE(request.Asked());
  EXPECT_EQ(request.by(), "");
  second = "SIGUSR1";
  EXPECT_TRUE(request.Asked());
  first = "another";
  second = "";
  EXPECT_TRUE(request.Asked());
  EXPECT_EQ(request.by(), "SIGUSR1");
  EXPECT_FALSE(StopRequest({}).Asked());
}

TEST(StopRequestTest, ATimeLimitAsksOnceItHasPassed) {
  EXPECT_EQ(TimeLimit(2, SteadySeconds() - 119)(), "");
  EXPECT_EQ(TimeLimit(2, SteadySeconds() - 121)(), "--max_minutes 2");
}

TEST(StopRequestTest, AStopFileAsksUntilItIsObeyed) {
  const TemporaryFolder run;
  const StopSource source = StopFile(run.path());
  EXPECT_EQ(source(), "");
  run.Write("stop", "");
  EXPECT_EQ(source(), "the file " + run / "stop");
  ASSERT_TRUE(RecordStop(run.path(), source(), /*by_user=*/false).ok());
  EXPECT_EQ(source(), "");
  EXPECT_EQ(ReadFile(run / "stopped"), "the file " + run / "stop" + "\n");
  // The next start is meant to go on.
  ASSERT_TRUE(ForgetStop(run.path()).ok());
  ASSERT_TRUE(ForgetStop(run.path()).ok());
  EXPECT_EQ(run.size(), 0);
}

TEST(StopRequestTest, RecordsOnlyWhatTheUserHasEnded) {
  const TemporaryFolder run;
  ASSERT_TRUE(RecordStop(run.path(), "--stop_at_step", /*by_user=*/true).ok());
  EXPECT_EQ(ReadFile(run / "stopped"), "--stop_at_step\n");
  // Left by an earlier job: this one was ended by something else.
  ASSERT_TRUE(RecordStop(run.path(), "SIGUSR1", /*by_user=*/false).ok());
  EXPECT_EQ(run.size(), 0);
  // A run that has no folder yet.
  EXPECT_TRUE(RecordStop(run / "none", "SIGUSR1", /*by_user=*/false).ok());
  // What cannot be recorded would be started again.
  std::filesystem::create_directory(run / "stopped");
  EXPECT_EQ(ExitCodeOf(RecordStop(run.path(), "--stop_at_step", /*by_user=*/true)), ExitCode::kIo);
}

}  // namespace
}  // namespace hypermoe
