#include "runtime/checkpoint_folder.h"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "runtime/file_util.h"
#include "runtime/hashed_file.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "step_";
constexpr char kTemporarySuffix[] = ".tmp";
constexpr size_t kMinDigits = 8;

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

absl::Status Rename(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return ErrnoError(from, "rename the folder", errno);
}

}  // namespace

absl::StatusOr<std::optional<std::string>> LatestCheckpoint(const std::string& run_dir) {
  const std::string parent = CheckpointsFolder(run_dir);
  std::error_code error;
  if (fs::status(parent, error).type() == fs::file_type::not_found) return std::nullopt;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, FolderNames(parent));
  std::optional<int64_t> newest;
  for (const std::string& name : names) newest = std::max(newest, StepOf(name));
  if (!newest.has_value()) return std::nullopt;
  const std::string path = CheckpointFolder(run_dir, *newest).path();
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(path));
  if (manifest.info.step != *newest) {
    return DataError(absl::StrCat("checkpoint ", Printable(path), " holds step ",
                                  manifest.info.step, "; rename the folder back or remove it"));
  }
  return path;
}

absl::StatusOr<std::string> ResolveCheckpoint(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return IoError(absl::StrCat(
        Printable(path), ": no such folder; give a run folder or a checkpoint folder in it"));
  }
  // Any kind of file, so that a link in its place is refused by name.
  if (fs::symlink_status(path + "/manifest.json", error).type() != fs::file_type::not_found) {
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

absl::Status RemoveOldCheckpoints(const std::string& run_dir, int64_t newest, int64_t keep) {
  const std::string parent = CheckpointsFolder(run_dir);
  ASSIGN_OR_RETURN(const std::vector<std::string> names, FolderNames(parent));
  std::vector<int64_t> older;
  for (const std::string& name : names) {
    const std::optional<int64_t> step = StepOf(name);
    if (step.has_value() && *step < newest) older.push_back(*step);
  }
  const auto kept = static_cast<size_t>(keep - 1);
  if (older.size() <= kept) return absl::OkStatus();
  std::sort(older.begin(), older.end());
  older.resize(older.size() - kept);
  // The new name first, durably, so that no half of a checkpoint has the name of a whole one.
  absl::Status first_error;
  std::vector<std::string> renamed;
  for (const int64_t step : older) {
    const CheckpointFolder folder(run_dir, step);
    const absl::Status status = Rename(folder.path(), folder.temporary());
    first_error.Update(status);
    if (status.ok()) renamed.push_back(folder.temporary());
  }
  RETURN_IF_ERROR(SyncFolder(parent));
  for (const std::string& path : renamed) first_error.Update(RemoveTree(path));
  return first_error;
}

CheckpointFolder::CheckpointFolder(const std::string& run_dir, int64_t step)
    : parent_(CheckpointsFolder(run_dir)),
      path_(absl::StrFormat("%s/%s%08d", parent_, kPrefix, step)),
      temporary_(path_ + kTemporarySuffix) {}

absl::Status CheckpointFolder::Begin() const {
  RETURN_IF_ERROR(CreateFolders(parent_));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, FolderNames(parent_));
  for (const std::string& name : names) {
    if (absl::StartsWith(name, kPrefix) && absl::EndsWith(name, kTemporarySuffix)) {
      RETURN_IF_ERROR(RemoveTree(absl::StrCat(parent_, "/", name)));
    }
  }
  return CreatePrivateFolder(temporary_);
}

absl::Status CheckpointFolder::Publish(const CheckpointManifest& manifest) const {
  RETURN_IF_ERROR(OpenFolderToOthers(temporary_));
  RETURN_IF_ERROR(WriteFileDurably(temporary_ + "/manifest.json", ManifestText(manifest)));
  std::error_code error;
  if (!fs::is_directory(path_, error)) {
    RETURN_IF_ERROR(Rename(temporary_, path_));
    return SyncFolder(parent_);
  }
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
    // Some file systems cannot exchange. A crash between these two leaves older checkpoints only.
    const std::string replaced = absl::StrCat(path_, ".replaced", kTemporarySuffix);
    RETURN_IF_ERROR(Rename(path_, replaced));
    if (absl::Status renamed = Rename(temporary_, path_); !renamed.ok()) {
      Rename(replaced, path_).IgnoreError();
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
