// The last resort against waiting for ever: ends this process where it stands still.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "absl/strings/string_view.h"

namespace hypermoe {

// While it lives, a thread ends this process with ExitCode::kHang and one line on stderr once
// nothing has been marked (parallel/progress_marks.h) for `seconds` and `may_end`, if given, allows
// it. The thread touches memory and stderr alone, so no file system can hold it.
class ProgressDeadline {
 public:
  // `rank` for the message.
  ProgressDeadline(double seconds, int rank, std::function<bool()> may_end = {});
  ~ProgressDeadline();
  ProgressDeadline(const ProgressDeadline&) = delete;
  ProgressDeadline& operator=(const ProgressDeadline&) = delete;

 private:
  void Watch();

  const double seconds_;
  const int rank_;
  const std::function<bool()> may_end_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;  // guarded by mutex_
  std::thread thread_;  // last: it uses all of the above
};

// Of what comes before or after a command's own watchdog, where it waits for all ranks.
constexpr double kStartSeconds = 600;

// Signals are for the threads that do the work: the calling one, which watches, takes none.
void BlockSignals();

// How often to look at what may stand still for `seconds`: a twentieth of that, within 20 ms and 1
// s.
double LookEvery(double seconds);

// Writes `text` to stderr without waiting for a reader that does not come: what a full pipe does
// not take within a second is lost. Takes no lock that another thread may hold.
void WriteStderrNow(absl::string_view text);

}  // namespace hypermoe
