// Where the time of one rank went, as a file for Perfetto (ui.perfetto.dev) and chrome://tracing:
// JSON in Chrome's Trace Event Format, {"traceEvents": [...]}, of complete events ("ph": "X").
//
// The process of the trace ("pid") is the rank; it has two threads, 0 "phases" and 1 "collectives".
// An event that lies within another of its thread is shown below it. Files of several ranks make
// one trace, by joining their lists traceEvents, if all were written relative to the same moment.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/pending_file.h"
#include "runtime/status.h"

namespace hypermoe {

struct TraceEvent {
  // The thread that shows it, and its "cat"; the value is its "tid".
  enum class Category : int { kPhase = 0, kCollective = 1 };

  Category category = Category::kPhase;
  std::string name;
  double start = 0;  // seconds of std::chrono::steady_clock
  double end = 0;    // not before `start`
  // Under "args", where given.
  std::optional<int64_t> bytes;
  std::string group;  // of the communicator
};

class TraceFile {
 public:
  // 1300 steps of 200 events: 27 MB of memory and 31 MB of file.
  static constexpr int64_t kMaxEvents = int64_t{1} << 18;

  // A file of rank `rank` at `path`, whose missing folders are created. "ts" counts from `origin`,
  // seconds of steady_clock: a moment that all ranks share, such as the end of a barrier, since the
  // clocks of two machines have nothing in common.
  static absl::StatusOr<std::unique_ptr<TraceFile>> Create(const std::string& path, int rank,
                                                           double origin,
                                                           int64_t max_events = kMaxEvents);

  // Keeps `event` in memory. Those after the first `max_events` are only counted, and the file says
  // in an instant event how many there were and when the first of them began.
  void Add(TraceEvent event);

  // Writes the file, durably. To be called once; without it no file appears.
  absl::Status Close();

 private:
  TraceFile(std::unique_ptr<PendingFile> file, int rank, double origin, int64_t max_events)
      : file_(std::move(file)), rank_(rank), origin_(origin), max_events_(max_events) {}

  std::unique_ptr<PendingFile> file_;
  const int rank_;
  const double origin_;
  const int64_t max_events_;
  std::vector<TraceEvent> events_;
  int64_t left_out_ = 0;
  double first_left_out_ = 0;  // when it began
};

}  // namespace hypermoe
