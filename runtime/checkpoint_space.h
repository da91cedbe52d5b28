// Whether the file system has room for the checkpoints that a run will write, found out before its
// first step instead of at its first save, hours later.
#pragma once

#include <cstdint>
#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// Bytes of a checkpoint's files, computed from the configuration, manifest included.
int64_t CheckpointBytes(const RunConfig& config);

// Checkpoints that a process which takes steps `begin` + 1 to `end` writes, and how many more than
// now are on the disk at a time. `present`: how many are there now.
struct CheckpointCounts {
  int64_t written = 0;
  // With checkpoint.keep: those kept and the one being written. Without, all that are written.
  int64_t at_a_time = 0;
};
CheckpointCounts CountCheckpoints(const CheckpointConfig& config, int64_t begin, int64_t end,
                                  int64_t present);

// IoError, with both figures, if the file system of `run_dir` (which need not exist) has less room
// than these take at a time, or, where that grows through the run as nothing is removed
// (checkpoint.keep 0), than one takes. Otherwise a warning if room will run out before the end, or
// "". What other programs and quotas take is not seen, and a file system that does not tell its
// size passes. Local.
absl::StatusOr<std::string> CheckSpace(const std::string& run_dir, const RunConfig& config,
                                       int64_t begin, int64_t end);

}  // namespace hypermoe
