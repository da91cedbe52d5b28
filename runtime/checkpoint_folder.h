// The folders of checkpoints: run_dir/checkpoints/step_00000100/, complete or absent. One that is
// being written, or was when its job died, ends in ".tmp" and is never read.
//
// run_dir/checkpoints/latest is a line of text, the name of the folder that was saved last. It
// moves after all else of a save is durable, and a run goes on from what it names:
//  - A folder of a later step was finished by a job that died before it moved `latest`, or is one
//    that a resume has passed over. It is not gone on from, and saving its step again replaces it.
//  - Where `latest` is missing, or names no folder, the highest step counts.
// Who wants to go back to an earlier step writes its folder's name into `latest`.
//
// With train.keep_best, run_dir/checkpoints/best names in the same way the folder whose model the
// run gives to all that do not go on with it. It moves after `latest`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/checkpoint_manifest.h"
#include "runtime/status.h"

namespace hypermoe {

// The steps of the folders of a run, in the order in which a resume tries them: the one that
// `latest` names, those before it, the newest first, and for want of a better one those after it.
// Empty for a run, or a path, without checkpoints. Local.
absl::StatusOr<std::vector<int64_t>> CheckpointSteps(const std::string& run_dir);

// The folder of a step, which need not be there.
std::string CheckpointPath(const std::string& run_dir, int64_t step);

// Reads and checks the manifest of the folder of a step: also that it is of that step. DataError as
// ReadManifest. Local.
absl::StatusOr<CheckpointManifest> ReadManifestOfStep(const std::string& run_dir, int64_t step);

// The folder of the newest checkpoint of `run_dir`, the first of CheckpointSteps, or nothing. An
// error names it if its manifest is damaged: no other one is taken in its place. Local.
absl::StatusOr<std::optional<std::string>> LatestCheckpoint(const std::string& run_dir);

// Has `best` name the folder of `step`, durably; nothing changes if that is not there. Local.
absl::Status PointToBest(const std::string& run_dir, int64_t step);

// `path` may be a run folder (its newest checkpoint; an error if it has none) or a checkpoint
// folder. Local.
absl::StatusOr<std::string> ResolveNewestCheckpoint(const std::string& path);
// The same for who does not go on with the run: of a run folder the checkpoint that `best` names,
// if it is there. Local.
absl::StatusOr<std::string> ResolveCheckpoint(const std::string& path);

// Whether there is a manifest in the folder `path`.
bool IsCheckpointFolder(const std::string& path);

// Reads and checks the manifest. Local.
absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& checkpoint);

// Removes the oldest checkpoints of `run_dir` so that `keep` (at least 1) are left of those up to
// step `newest`, which has just been published and stays, as does one of a later step. `previous`
// is the step of the checkpoint that the run had saved, or gone on from, before (0: none): those
// between were passed over, damaged perhaps, so they go and do not count. That of step `best` (0:
// none) stays and does not count. Each goes as a whole: one whose removal was interrupted is never
// read, and the next save cleans up. Goes on after a failure and returns the first. Local.
absl::Status RemoveOldCheckpoints(const std::string& run_dir, int64_t previous, int64_t newest,
                                  int64_t keep, int64_t best = 0);

// Removes the temporary folders that killed jobs have left in `run_dir`: call it when none is in
// use. Goes on after a failure and returns the first. Local.
absl::Status RemoveLeftovers(const std::string& run_dir);

// The saving of one checkpoint, from its temporary folder to its name. Local, for one rank; others
// only need temporary().
class CheckpointFolder {
 public:
  CheckpointFolder(const std::string& run_dir, int64_t step);
  const std::string& path() const { return path_; }
  const std::string& temporary() const { return temporary_; }

  // Creates the temporary folder, empty; removes what killed jobs have left in the run folder.
  absl::Status Begin() const;
  // Gives the temporary folder, with `manifest` as its last file, the checkpoint's name, and then
  // has `latest` name it. A checkpoint of the same step is replaced: exchanged in one step where
  // the file system can do that. All of it is durable on return.
  absl::Status Publish(const CheckpointManifest& manifest) const;
  // Removes the temporary folder.
  void Discard() const;

 private:
  absl::Status Rename() const;

  std::string parent_;
  std::string name_;
  std::string path_;
  std::string temporary_;
};

}  // namespace hypermoe
