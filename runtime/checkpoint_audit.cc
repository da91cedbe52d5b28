#include "runtime/checkpoint_audit.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "parallel/partition.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint_file.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

int64_t TotalBytes(const CheckpointManifest& manifest) {
  int64_t bytes = 0;
  for (const auto& [name, file] : manifest.files) bytes += file.bytes;
  return bytes;
}

// The steps of a run that must have some.
absl::StatusOr<std::vector<int64_t>> StepsOfRun(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return IoError(absl::StrCat(
        Printable(path), ": no such folder; give a run folder or a checkpoint folder in it"));
  }
  ASSIGN_OR_RETURN(std::vector<int64_t> steps, CheckpointSteps(path));
  if (!steps.empty()) return steps;
  return DataError(absl::StrCat(
      Printable(path), ": holds no checkpoint (neither manifest.json nor checkpoints/step_*)"));
}

// Damage to this rank's share of the chunks of all files, taken as one row. Header and manifest are
// compared by the rank that has a file's first chunk. Local.
std::vector<std::string> DamageInShare(const std::string& checkpoint,
                                       const CheckpointManifest& manifest,
                                       const Communicator& world) {
  int64_t chunks = 0;
  for (const auto& [name, file] : manifest.files)
    chunks += static_cast<int64_t>(file.chunks.size());
  const RowRange own = RowsOfRank(chunks, world.size(), world.rank());
  std::vector<std::string> damage;
  const auto note = [&damage](const absl::Status& status) {
    if (!status.ok()) damage.emplace_back(status.message());
  };
  int64_t begin = 0;
  for (const auto& [name, digest] : manifest.files) {
    const auto count = static_cast<int64_t>(digest.chunks.size());
    const int64_t first = std::max(own.begin, begin), last = std::min(own.end, begin + count);
    if (first < last) {
      const auto file = CheckpointFile::Open(checkpoint, name, manifest);
      note(file.status());
      for (int64_t i = first; file.ok() && i < last; ++i) note((*file)->CheckChunk(i - begin));
      if (file.ok() && first == begin) note((*file)->CheckHeader());
    }
    begin += count;
  }
  return damage;
}

CheckpointAudit Audit(const std::string& checkpoint,
                      const absl::StatusOr<CheckpointManifest>& manifest, Communicator& world) {
  CheckpointAudit audit;
  audit.checkpoint = checkpoint;
  const absl::Status readable = Agree(world, manifest.status());
  if (!readable.ok()) {
    audit.damage.emplace_back(readable.message());
    return audit;
  }
  audit.files = static_cast<int64_t>(manifest->files.size());
  audit.bytes = TotalBytes(*manifest);
  audit.tensors = static_cast<int64_t>(manifest->tensors.size());
  // Messages have no line breaks: Printable escapes them.
  const std::string own = absl::StrJoin(DamageInShare(checkpoint, *manifest, world), "\n");
  for (const std::string& text : world.AllGatherText(own)) {
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      // A damaged header is met twice, as a chunk and as a header.
      if (std::find(audit.damage.begin(), audit.damage.end(), line) == audit.damage.end())
        audit.damage.emplace_back(line);
    }
  }
  return audit;
}

}  // namespace

absl::StatusOr<std::vector<CheckpointAudit>> AuditCheckpoints(const std::string& path,
                                                              Communicator& world) {
  // Rank 0 says which they are: ranks that see other folders must not wait for each other.
  absl::StatusOr<std::vector<int64_t>> steps = std::vector<int64_t>();
  if (world.rank() == 0 && !IsCheckpointFolder(path)) steps = StepsOfRun(path);
  RETURN_IF_ERROR(Agree(world, steps.status()));
  std::sort(steps->begin(), steps->end());
  const std::string list = world.AllGatherText(absl::StrJoin(*steps, " "))[0];
  std::vector<CheckpointAudit> audits;
  for (const absl::string_view word : absl::StrSplit(list, ' ', absl::SkipEmpty())) {
    int64_t step = 0;
    if (absl::SimpleAtoi(word, &step))
      audits.push_back(Audit(CheckpointPath(path, step), ReadManifestOfStep(path, step), world));
  }
  if (list.empty()) audits.push_back(Audit(path, ReadManifest(path), world));
  return audits;
}

absl::StatusOr<std::vector<ListedCheckpoint>> ListCheckpoints(const std::string& run_dir) {
  if (IsCheckpointFolder(run_dir)) {
    return UsageError(
        absl::StrCat(Printable(run_dir), " is a checkpoint: give the run folder that it is in"));
  }
  ASSIGN_OR_RETURN(std::vector<int64_t> steps, StepsOfRun(run_dir));
  const int64_t latest = steps.front();
  std::sort(steps.begin(), steps.end());
  std::vector<ListedCheckpoint> listed;
  for (const int64_t step : steps) {
    const std::string path = CheckpointPath(run_dir, step);
    ListedCheckpoint& line = listed.emplace_back();
    line.name = fs::path(path).filename().string();
    line.latest = step == latest;
    const absl::StatusOr<CheckpointManifest> manifest = ReadManifestOfStep(run_dir, step);
    if (!manifest.ok()) {
      line.damage = std::string(manifest.status().message());
      continue;
    }
    struct stat info;
    if (stat((path + "/manifest.json").c_str(), &info) == 0) line.written = info.st_mtime;
    line.step = step;
    line.bytes = TotalBytes(*manifest);
    line.tensors = static_cast<int64_t>(manifest->tensors.size());
    line.world_size = manifest->info.world_size;
    line.expert_parallel = manifest->info.expert_parallel;
    line.has_moments = manifest->info.has_moments;
  }
  return listed;
}

}  // namespace hypermoe
