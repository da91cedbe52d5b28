#include "launch/stop_signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

namespace hypermoe {
namespace {

class StopSignalsTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const int number : {SIGUSR1, SIGTERM}) signal(number, SIG_DFL);
    unsetenv("OMPI_COMM_WORLD_RANK");
  }
};

TEST_F(StopSignalsTest, NamesTheFirstSignal) {
  TakeStopSignals();
  EXPECT_EQ(StopSignal(), "");
  raise(SIGTERM);
  EXPECT_EQ(StopSignal(), "SIGTERM");
  raise(SIGUSR1);  // at once: the same request
  EXPECT_EQ(StopSignal(), "SIGTERM");
  TakeStopSignals();
  EXPECT_EQ(StopSignal(), "");
  raise(SIGUSR1);
  EXPECT_EQ(StopSignal(), "SIGUSR1");
}

TEST_F(StopSignalsTest, ASecondSignalEndsTheProcess) {
  TakeStopSignals();
  raise(SIGUSR1);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  EXPECT_EXIT(raise(SIGUSR1), testing::ExitedWithCode(75), "at once by a second signal");
}

// How a child ends to which its parent sends SIGTERM: its exit code, or minus the signal.
int EndAfterTermOfParent() {
  int ready[2];
  EXPECT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    TakeStopSignals();
    const bool told = write(ready[1], "", 1) == 1;
    for (int i = 0; told && i < 3000 && StopSignal().empty(); ++i) usleep(10'000);
    _exit(StopSignal() == "SIGTERM" ? 3 : 4);
  }
  char byte = 0;
  EXPECT_EQ(read(ready[0], &byte, 1), 1);
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  close(ready[0]);
  close(ready[1]);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

TEST_F(StopSignalsTest, MpirunEndsItsRanksAsEver) {
  EXPECT_EQ(EndAfterTermOfParent(), 3);
  setenv("OMPI_COMM_WORLD_RANK", "0", 1);
  EXPECT_EQ(EndAfterTermOfParent(), -SIGTERM);
}

}  // namespace
}  // namespace hypermoe
