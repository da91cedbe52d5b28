// Runs all tests on every rank: mpirun -np 2 distributed_tests [--gtest_filter=...]
//
// Rank 0 prints googletest's output, the others their failures only. Fails on all ranks if a test
// fails on any, or if the number of ranks is not HYPERMOE_EXPECT_RANKS (where that is set).
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "launch/distributed_init.h"
#include "tests/support/mpi_test.h"

namespace hypermoe {
namespace {

std::shared_ptr<Communicator> world;

// A rank that failed an ASSERT may have left others waiting in a collective.
constexpr unsigned kTestLimitSeconds = 60;
char current_test[256];

void OnTimeout(int /*signal*/) {
  static constexpr char kText[] = " took too long: a rank does not take part in a collective\n";
  const ssize_t written = write(STDERR_FILENO, current_test, std::strlen(current_test)) +
                          write(STDERR_FILENO, kText, sizeof(kText) - 1);
  _exit(written > 0 ? 1 : 2);
}

class Watchdog : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& test) override {
    std::snprintf(current_test, sizeof(current_test), "[rank %d] %s.%s", world->rank(),
                  test.test_suite_name(), test.name());
    alarm(kTestLimitSeconds);
  }
  void OnTestEnd(const testing::TestInfo& /*test*/) override { alarm(0); }
};

// Printed at once, so that it is seen even if the test then hangs.
class FailurePrinter : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "%s failed at %s:%d\n%s\n", current_test,
                 result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(),
                 result.message());
  }
};

void InstallListeners() {
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world->rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter);  // googletest owns listeners
  }
  listeners.Append(new Watchdog);
  signal(SIGALRM, OnTimeout);
}

bool RightNumberOfRanks() {
  const char* expected = std::getenv("HYPERMOE_EXPECT_RANKS");
  if (expected == nullptr || std::to_string(world->size()) == expected) return true;
  if (world->rank() == 0) {
    std::fprintf(stderr, "HYPERMOE_EXPECT_RANKS is %s, but the world has %d ranks\n", expected,
                 world->size());
  }
  return false;
}

// The same result on every rank.
bool PassedEverywhere(bool passed_here) {
  const std::vector<std::string> results = world->AllGatherText(passed_here ? "" : "failed");
  bool passed = true;
  for (int rank = 0; rank < world->size(); ++rank) {
    if (results[rank].empty()) continue;
    passed = false;
    if (world->rank() == 0) std::fprintf(stderr, "tests failed on rank %d\n", rank);
  }
  return passed;
}

int RunTests(int* argc, char*** argv) {
  DistributedContext context(argc, argv);
  world = context.world();
  bool passed = RightNumberOfRanks();
  if (passed) {
    InstallListeners();
    passed = PassedEverywhere(RUN_ALL_TESTS() == 0);
  }
  world.reset();
  return passed ? 0 : 1;
}

}  // namespace

const std::shared_ptr<Communicator>& World() { return world; }

}  // namespace hypermoe

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  try {
    return hypermoe::RunTests(&argc, &argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "distributed tests: %s\n", error.what());
    hypermoe::Abort(1);
  }
}
