// The folders of checkpoints: run_dir/checkpoints/step_00000100/, complete or absent. One that is
// being written, or was when its job died, ends in ".tmp" and is never read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/checkpoint_manifest.h"
#include "runtime/status.h"

namespace hypermoe {

// The folder of the newest checkpoint of `run_dir`, or nothing. An error names the newest if its
// manifest is damaged: no older one is taken in its place. Local.
absl::StatusOr<std::optional<std::string>> LatestCheckpoint(const std::string& run_dir);

// `path` may be a run folder (its newest checkpoint; an error if it has none) or a checkpoint
// folder. Local.
absl::StatusOr<std::string> ResolveCheckpoint(const std::string& path);

// Reads and checks the manifest. Local.
absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& checkpoint);

// Removes the oldest checkpoints of `run_dir` so that `keep` (at least 1) are left of those up to
// step `newest`, which has just been published and stays, as does one of a later step. Each goes as
// a whole: one whose removal was interrupted is never read, and the next save cleans up. Goes on
// after a failure and returns the first. Local.
absl::Status RemoveOldCheckpoints(const std::string& run_dir, int64_t newest, int64_t keep);

// The saving of one checkpoint, from its temporary folder to its name. Local, for one rank; others
// only need temporary().
class CheckpointFolder {
 public:
  CheckpointFolder(const std::string& run_dir, int64_t step);
  const std::string& path() const { return path_; }
  const std::string& temporary() const { return temporary_; }

  // Creates the temporary folder, empty; removes what killed jobs have left in the run folder.
  absl::Status Begin() const;
  // Gives the temporary folder, with `manifest` as its last file, the checkpoint's name. A
  // checkpoint of the same step is replaced: exchanged in one step where the file system can do
  // that.
  absl::Status Publish(const CheckpointManifest& manifest) const;
  // Removes the temporary folder.
  void Discard() const;

 private:
  std::string parent_;
  std::string path_;
  std::string temporary_;
};

}  // namespace hypermoe
