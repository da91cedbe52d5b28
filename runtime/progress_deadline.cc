#include "runtime/progress_deadline.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "parallel/progress_marks.h"
#include "parallel/steady_seconds.h"
#include "runtime/status.h"
#include "runtime/stillness.h"

namespace hypermoe {
namespace {

// Ranks that stand still together end one after the other, so that the first one's message is, as a
// rule, the only one.
void WaitForLowerRanks(int rank) {
  std::this_thread::sleep_for(std::chrono::milliseconds(std::min(1000, 200 * rank)));
}

[[noreturn]] void EndProcess(int rank, double still) {
  WaitForLowerRanks(rank);
  const Progress p = ReadProgress();
  char line[512];
  // No allocation: another thread may be held inside one.
  std::snprintf(line, sizeof(line),
                "hypermoe: error: rank %d: no progress for %.1f s in phase %s of step %lld, %s "
                "collective %lld (%s of group '%s'): start the same command again\n",
                rank, still, *p.phase == '\0' ? "start" : p.phase, static_cast<long long>(p.step),
                p.inside ? "inside" : "after", static_cast<long long>(p.collective), p.kind,
                p.group.data());
  WriteStderrNow(line);
  _exit(static_cast<int>(ExitCode::kHang));
}

}  // namespace

void BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

double LookEvery(double seconds) { return std::clamp(seconds / 20, 0.02, 1.0); }

void WriteStderrNow(absl::string_view text) {
  constexpr int kPatience = 1000;  // milliseconds
  for (size_t begin = 0; begin < text.size();) {
    pollfd ready = {STDERR_FILENO, POLLOUT, 0};
    if (poll(&ready, 1, kPatience) <= 0) return;
    // So much fits into a pipe that is ready.
    const size_t part = std::min<size_t>(text.size() - begin, PIPE_BUF);
    const ssize_t written = write(STDERR_FILENO, text.data() + begin, part);
    if (written < 0) return;
    begin += static_cast<size_t>(written);
  }
}

ProgressDeadline::ProgressDeadline(double seconds, int rank, std::function<bool()> may_end)
    : seconds_(seconds), rank_(rank), may_end_(std::move(may_end)), thread_([this] { Watch(); }) {}

ProgressDeadline::~ProgressDeadline() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ProgressDeadline::Watch() {
  BlockSignals();
  const std::chrono::duration<double> look_every(LookEvery(seconds_));
  Stillness still(/*longest_gap=*/std::max(1.0, 3 * look_every.count()));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, look_every, [this] { return ended_; })) {
    const double seconds = still.Observe(ReadProgress().marks, SteadySeconds());
    if (seconds >= seconds_ && (!may_end_ || may_end_())) EndProcess(rank_, seconds);
  }
}

}  // namespace hypermoe
