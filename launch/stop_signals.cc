#include "launch/stop_signals.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#include "launch/distributed_init.h"
#include "runtime/status.h"

namespace hypermoe {
namespace {

// The first signal: its time in milliseconds of the steady clock times kSignals, plus its number;
// 0: none yet. In one word, for the handler may run on several threads at once.
std::atomic<int64_t> request = 0;
static_assert(std::atomic<int64_t>::is_always_lock_free, "else a handler may not touch it");
constexpr int64_t kSignals = 128;
constexpr int64_t kOneRequestMilliseconds = 1000;

// Set before the handlers are.
int64_t rank = 0;
bool under_mpirun = false;

int64_t Milliseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

// All ranks get the signal at about the same time; the lowest speaks and, by ending, makes mpirun
// end the others.
[[noreturn]] void LeaveAtOnce() {
  const timespec head_start = {0, std::min<int64_t>(900, 200 * rank) * 1'000'000};
  nanosleep(&head_start, nullptr);
  static constexpr char kText[] =
      "hypermoe: error: stopped at once by a second signal, without waiting for a save: the same "
      "command goes on from the last checkpoint\n";
  // To whom should a failure to say so be told?
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  _exit(static_cast<int>(ExitCode::kStopped));
}

// Async-signal-safe.
void OnSignal(int number, siginfo_t* info, void* /*context*/) {
  const int interrupted_errno = errno;
  if (number == SIGTERM && under_mpirun && info->si_pid == getppid()) {
    signal(SIGTERM, SIG_DFL);
    raise(SIGTERM);  // as soon as this returns
    return;
  }
  const int64_t now = Milliseconds();
  int64_t first = 0;
  if (!request.compare_exchange_strong(first, now * kSignals + number) &&
      now - first / kSignals >= kOneRequestMilliseconds) {
    LeaveAtOnce();
  }
  errno = interrupted_errno;
}

}  // namespace

void TakeStopSignals() {
  request = 0;
  rank = LaunchRank();
  // Open MPI's; under another launcher SIGTERM leaves the time that it says.
  under_mpirun = std::getenv("OMPI_COMM_WORLD_RANK") != nullptr;
  struct sigaction action = {};
  action.sa_sigaction = OnSignal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int number : {SIGUSR1, SIGTERM}) sigaction(number, &action, nullptr);
}

std::string StopSignal() {
  const int64_t first = request.load();
  if (first == 0) return "";
  return first % kSignals == SIGTERM ? "SIGTERM" : "SIGUSR1";
}

}  // namespace hypermoe
