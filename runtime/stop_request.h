// What asks a run to stop before its end, with all its work saved: a signal, a file, a time limit.
// And how a run tells those who would start it again that its user wanted it to end.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

// What asks this rank to stop, as messages name it ("SIGUSR1"); "" while nothing does. Local, and
// cheap enough for every step. May be given to one rank only: ranks agree on what they hear.
using StopSource = std::function<std::string()>;

// The file run_dir/stop, whatever is in it. One that is there when the run starts counts too: its
// job may have waited in a queue.
StopSource StopFile(const std::string& run_dir);

// So many minutes after `since`, in seconds of SteadySeconds.
StopSource TimeLimit(double minutes, double since);

class StopRequest {
 public:
  explicit StopRequest(std::vector<StopSource> sources);
  // Whether one of the sources asks, or has asked: it stays so. Local.
  bool Asked();
  // The first that has asked; "".
  const std::string& by() const { return by_; }

 private:
  std::vector<StopSource> sources_;
  std::string by_;
};

// The file run_dir/stopped says that the user has ended the run, so that launch/keep_running and
// Slurm's jobs do not start it again. Both functions are local, for one rank.
// Call where a run starts: removes it.
absl::Status ForgetStop(const std::string& run_dir);
// Call where `by` has stopped the run: writes it, with `by` in it, if that is the user or there is
// a run_dir/stop, and removes it otherwise. run_dir/stop has been obeyed and goes.
absl::Status RecordStop(const std::string& run_dir, const std::string& by, bool by_user);

}  // namespace hypermoe
