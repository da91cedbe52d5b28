// Checkpoints seen from outside: what a run has of them, and whether every byte is as it was
// written.
#pragma once

#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {

struct CheckpointAudit {
  std::string checkpoint;  // its folder
  int64_t files = 0, bytes = 0, tensors = 0;
  std::vector<std::string> damage;  // each piece of it, with file and tensors; empty: intact
};

// Compares every byte of a checkpoint with its digests, and every header with the manifest. `path`:
// a run folder (all of its checkpoints) or a checkpoint folder. The work is divided over the ranks
// of `world`. IoError if there is no such folder, DataError if it holds no checkpoint; damage is no
// error. Collective, the same result on every rank.
absl::StatusOr<std::vector<CheckpointAudit>> AuditCheckpoints(const std::string& path,
                                                              Communicator& world);

struct ListedCheckpoint {
  std::string name;  // of its folder
  bool latest = false;
  // Without damage to the manifest:
  int64_t step = 0, bytes = 0, tensors = 0;
  int world_size = 0, expert_parallel = 0;
  bool has_moments = false;
  time_t written = 0;
  std::string damage;  // to the manifest, or a file that is missing or of another size; or ""
};

// The checkpoints of a run by step, those with damaged manifests too; `latest` is the one that a
// resume begins with. Content is not read. IoError, DataError as AuditCheckpoints. Local.
absl::StatusOr<std::vector<ListedCheckpoint>> ListCheckpoints(const std::string& run_dir);

}  // namespace hypermoe
