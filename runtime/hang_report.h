// Who holds a job up: from what each rank last said of itself and for how long it has been silent.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/heartbeat.h"

namespace hypermoe {

// A rank as another one sees it.
struct RankState {
  std::optional<Heartbeat> heartbeat;  // the last that was read; none: it has no file
  double silent = 0;  // seconds for which its heartbeat has been seen not to change

  // Seconds without progress, as far as anybody can know.
  double idle() const { return heartbeat.has_value() ? heartbeat->idle + silent : 0; }
};

enum class RankCondition {
  kUnknown,  // no heartbeat
  kWorking,  // has made progress lately
  kWaiting,  // lives, and has made none, inside a collective
  kStuck,    // lives, and has made none, outside of collectives
  kSilent    // its process does not run: stopped, or its machine is gone
};
// "Lately", and heartbeats that still count as alive: within a third of `hang_seconds`.
RankCondition ConditionOf(const RankState& rank, double hang_seconds);

// Whether rank `self` must end the job, as it sees the ranks of the world:
// - a rank's heartbeat has stopped for `hang_seconds`, or
// - `self` is outside of collectives and has made no progress for so long, or
// - `self` has been inside one collective for so long, and no rank is still busy elsewhere, which
//   is working, or outside of collectives with some of its own `hang_seconds` left.
bool JobHangs(const std::vector<RankState>& ranks, int self, double hang_seconds);

struct HangReport {
  std::string headline;            // one line: which rank, what it was doing, why
  std::vector<std::string> ranks;  // a line for each rank
};
HangReport DescribeHang(const std::vector<RankState>& ranks, double hang_seconds);

}  // namespace hypermoe
