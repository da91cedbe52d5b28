#include "runtime/checkpoint_folder.h"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "parallel/progress_marks.h"
#include "runtime/file_util.h"
#include "runtime/hashed_file.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "step_";
constexpr char kTemporarySuffix[] = ".tmp";
constexpr char kLatest[] = "latest";
constexpr char kBest[] = "best";
constexpr size_t kMinDigits = 8;
constexpr size_t kMaxPointerBytes = 64;

std::string CheckpointsFolder(const std::string& run_dir) {
  return absl::StrCat(run_dir, "/checkpoints");
}

// Of a name as CheckpointFolder gives it; nothing for any other.
std::optional<int64_t> StepOf(const std::string& name) {
  absl::string_view digits = name;
  int64_t step = 0;
  if (!absl::ConsumePrefix(&digits, kPrefix) || digits.size() < kMinDigits ||
      !absl::SimpleAtoi(digits, &step))
    return {};
  if (absl::StrFormat("%s%08d", kPrefix, step) != name) return {};
  return step;
}

absl::StatusOr<std::vector<std::string>> FolderNames(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return ErrnoError(path, "list the folder", error.value());
  return names;
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return ErrnoError(path, "remove the folder", error.value());
  return absl::OkStatus();
}

absl::Status RenameFolder(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return ErrnoError(from, "rename the folder", errno);
}

// What saves that were not completed have left. Goes on after a failure and returns the first.
absl::Status RemoveTemporaries(const std::string& parent) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, FolderNames(parent));
  absl::Status first_error;
  for (const std::string& name : names) {
    // Of `latest` and `best`: as PendingFile names what has no name yet.
    if ((absl::StartsWith(name, kPrefix) && absl::EndsWith(name, kTemporarySuffix)) ||
        absl::StartsWith(name, absl::StrCat(kLatest, kTemporarySuffix, ".")) ||
        absl::StartsWith(name, absl::StrCat(kBest, kTemporarySuffix, "."))) {
      first_error.Update(RemoveTree(absl::StrCat(parent, "/", name)));
    }
  }
  return first_error;
}

std::string NameOfStep(int64_t step) { return absl::StrFormat("%s%08d", kPrefix, step); }

// What `pointer` names, if it can be read and names a checkpoint; whether that is there is another
// question.
std::optional<int64_t> StepNamed(const std::string& parent, const char* pointer) {
  const auto file =
      MappedFile::Open(absl::StrCat(parent, "/", pointer), MappedFile::Links::kRefuse);
  if (!file.ok() || (*file)->size() > kMaxPointerBytes) return std::nullopt;
  absl::string_view text((*file)->data(), (*file)->size());
  absl::ConsumeSuffix(&text, "\n");
  return StepOf(std::string(text));
}

bool IsFolder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

}  // namespace

std::string CheckpointPath(const std::string& run_dir, int64_t step) {
  return CheckpointFolder(run_dir, step).path();
}

absl::StatusOr<std::vector<int64_t>> CheckpointSteps(const std::string& run_dir) {
  const std::string parent = CheckpointsFolder(run_dir);
  std::vector<int64_t> steps;
  std::error_code error;
  if (fs::status(parent, error).type() == fs::file_type::not_found) return steps;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, FolderNames(parent));
  for (const std::string& name : names) {
    if (const std::optional<int64_t> step = StepOf(name)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end(), std::greater<>());
  const std::optional<int64_t> latest = StepNamed(parent, kLatest);
  if (latest.has_value()) {
    const auto named = std::find(steps.begin(), steps.end(), *latest);
    // Where it is not there all stay in their order.
    if (named != steps.end()) std::rotate(steps.begin(), named, steps.end());
  }
  return steps;
}

absl::StatusOr<CheckpointManifest> ReadManifestOfStep(const std::string& run_dir, int64_t step) {
  const std::string path = CheckpointPath(run_dir, step);
  ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadManifest(path));
  if (manifest.info.step == step) return manifest;
  return DataError(absl::StrCat("checkpoint ", Printable(path), " holds step ", manifest.info.step,
                                "; rename the folder back or remove it"));
}

absl::StatusOr<std::optional<std::string>> LatestCheckpoint(const std::string& run_dir) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, CheckpointSteps(run_dir));
  if (steps.empty()) return std::nullopt;
  RETURN_IF_ERROR(ReadManifestOfStep(run_dir, steps.front()).status());
  return CheckpointPath(run_dir, steps.front());
}

bool IsCheckpointFolder(const std::string& path) {
  // Any kind of file, so that a link in its place is refused by name.
  std::error_code error;
  return fs::symlink_status(path + "/manifest.json", error).type() != fs::file_type::not_found;
}

absl::Status PointToBest(const std::string& run_dir, int64_t step) {
  if (!IsFolder(CheckpointPath(run_dir, step))) return absl::OkStatus();
  return WriteFileDurably(absl::StrCat(CheckpointsFolder(run_dir), "/", kBest),
                          NameOfStep(step) + "\n");
}

absl::StatusOr<std::string> ResolveCheckpoint(const std::string& path) {
  const std::optional<int64_t> best = StepNamed(CheckpointsFolder(path), kBest);
  if (!best.has_value() || !IsFolder(CheckpointPath(path, *best)) || IsCheckpointFolder(path))
    return ResolveNewestCheckpoint(path);
  RETURN_IF_ERROR(ReadManifestOfStep(path, *best).status());
  return CheckpointPath(path, *best);
}

absl::StatusOr<std::string> ResolveNewestCheckpoint(const std::string& path) {
  if (!IsFolder(path)) {
    return IoError(absl::StrCat(
        Printable(path), ": no such folder; give a run folder or a checkpoint folder in it"));
  }
  if (IsCheckpointFolder(path)) {
    RETURN_IF_ERROR(ReadManifest(path).status());
    return path;
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> latest, LatestCheckpoint(path));
  if (!latest.has_value()) {
    return DataError(absl::StrCat(
        Printable(path), ": holds no checkpoint (neither manifest.json nor checkpoints/step_*)"));
  }
  return *latest;
}

absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& checkpoint) {
  ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadManifest(checkpoint));
  return std::move(manifest.info);
}

absl::Status RemoveOldCheckpoints(const std::string& run_dir, int64_t previous, int64_t newest,
                                  int64_t keep, int64_t best) {
  const std::string parent = CheckpointsFolder(run_dir);
  ASSIGN_OR_RETURN(std::vector<int64_t> steps, CheckpointSteps(run_dir));
  std::sort(steps.begin(), steps.end(), std::greater<>());
  std::vector<int64_t> removed;
  int64_t kept = 1;  // the newest
  for (const int64_t step : steps) {
    if (step >= newest || step == best) continue;
    const bool passed_over = step > previous;
    if (passed_over || kept >= keep) {
      removed.push_back(step);
    } else {
      ++kept;
    }
  }
  if (removed.empty()) return absl::OkStatus();
  // The new name first, durably, so that no half of a checkpoint has the name of a whole one.
  absl::Status first_error;
  std::vector<std::string> renamed;
  for (const int64_t step : removed) {
    const CheckpointFolder folder(run_dir, step);
    const absl::Status status = RenameFolder(folder.path(), folder.temporary());
    first_error.Update(status);
    if (status.ok()) renamed.push_back(folder.temporary());
  }
  RETURN_IF_ERROR(SyncFolder(parent));
  for (const std::string& path : renamed) {
    first_error.Update(RemoveTree(path));
    MarkProgress();
  }
  return first_error;
}

absl::Status RemoveLeftovers(const std::string& run_dir) {
  const std::string parent = CheckpointsFolder(run_dir);
  std::error_code error;
  if (fs::status(parent, error).type() == fs::file_type::not_found) return absl::OkStatus();
  return RemoveTemporaries(parent);
}

CheckpointFolder::CheckpointFolder(const std::string& run_dir, int64_t step)
    : parent_(CheckpointsFolder(run_dir)),
      name_(NameOfStep(step)),
      path_(absl::StrCat(parent_, "/", name_)),
      temporary_(path_ + kTemporarySuffix) {}

absl::Status CheckpointFolder::Begin() const {
  RETURN_IF_ERROR(CreateFolders(parent_));
  // Of other steps it costs space at most: another user's, or held open on another machine.
  RemoveTemporaries(parent_).IgnoreError();
  RETURN_IF_ERROR(RemoveTree(temporary_));
  return CreatePrivateFolder(temporary_);
}

absl::Status CheckpointFolder::Publish(const CheckpointManifest& manifest) const {
  RETURN_IF_ERROR(OpenFolderToOthers(temporary_));
  RETURN_IF_ERROR(WriteFileDurably(temporary_ + "/manifest.json", ManifestText(manifest)));
  RETURN_IF_ERROR(Rename());
  return WriteFileDurably(absl::StrCat(parent_, "/", kLatest), name_ + "\n");
}

absl::Status CheckpointFolder::Rename() const {
  if (!IsFolder(path_)) {
    RETURN_IF_ERROR(RenameFolder(temporary_, path_));
    return SyncFolder(parent_);
  }
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
    // Some file systems cannot exchange. A crash between these two leaves older checkpoints only.
    const std::string replaced = absl::StrCat(path_, ".replaced", kTemporarySuffix);
    RETURN_IF_ERROR(RenameFolder(path_, replaced));
    if (absl::Status renamed = RenameFolder(temporary_, path_); !renamed.ok()) {
      RenameFolder(replaced, path_).IgnoreError();
      return renamed;
    }
    RETURN_IF_ERROR(SyncFolder(parent_));
    RemoveTree(replaced).IgnoreError();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(SyncFolder(parent_));
  // The checkpoint is there; what may stay of the replaced one, the next save removes or reports.
  RemoveTree(temporary_).IgnoreError();
  return absl::OkStatus();
}

void CheckpointFolder::Discard() const {
  // Another failure is being reported; what stays is removed by the next save.
  RemoveTree(temporary_).IgnoreError();
}

}  // namespace hypermoe
