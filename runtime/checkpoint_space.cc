#include "runtime/checkpoint_space.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/file_util.h"
#include "runtime/memory_plan.h"
#include "runtime/model_cost.h"
#include "runtime/parameter_patterns.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

// What a manifest and the files' headers say of a tensor, about, and how many tensors there are of
// a block without its experts, of an expert, and beside the blocks.
constexpr int64_t kTextBytes = 320;
constexpr int64_t kTensorsOfBlock = 14, kTensorsOfExpert = 4, kOtherTensors = 24;
constexpr int64_t kManifestBytes = 16 << 10;  // with the configuration

// The nearest folder above `path` that exists, or `path` itself.
std::string ExistingFolder(std::string path) {
  std::error_code error;
  while (!fs::is_directory(path, error)) {
    const std::string parent = ParentFolder(path);
    if (parent == path) break;
    path = parent;
  }
  return path;
}

// What is in the run's folder of checkpoints.
struct Present {
  int64_t checkpoints = 0;
  int64_t unfinished_bytes = 0;  // of killed jobs, removed by the next save
};

Present FindPresent(const std::string& run_dir) {
  Present present;
  std::error_code error;
  const fs::path parent = fs::path(run_dir) / "checkpoints";
  for (fs::recursive_directory_iterator entry(parent, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    const bool folder = entry->is_directory(ignored);
    if (entry.depth() == 0 && folder) {
      const std::string name = entry->path().filename().string();
      const bool finished = !absl::EndsWith(name, ".tmp");
      if (finished) entry.disable_recursion_pending();
      if (finished && absl::StartsWith(name, "step_")) ++present.checkpoints;
    } else if (!folder && entry.depth() > 0) {
      const uintmax_t bytes = entry->file_size(ignored);
      if (!ignored) present.unfinished_bytes += static_cast<int64_t>(bytes);
    }
  }
  return present;
}

// Validations may be followed by a checkpoint of the best, which is one more that stays.
CheckpointConfig WithBest(const RunConfig& config) {
  CheckpointConfig with = config.checkpoint();
  if (!config.train().keep_best()) return with;
  const int64_t every = config.train().validation_every();
  if (with.every() == 0 || every < with.every()) with.set_every(every);
  if (with.keep() > 0) with.set_keep(with.keep() + 1);
  return with;
}

}  // namespace

int64_t CheckpointBytes(const RunConfig& config) {
  const int64_t parameters = CountParameters(config).total();
  const int64_t trained = parameters - CountFrozen(config).total();
  const int64_t element = config.runtime().dtype() == RuntimeConfig::float64 ? 8 : 4;
  const int64_t experts =
      config.model().num_experts() * static_cast<int64_t>(SparseLayers(config.model()).size());
  const int64_t tensors = 3 * (kTensorsOfBlock * NumBlocks(config.model()) +
                               kTensorsOfExpert * experts + kOtherTensors);
  return element * (parameters + 2 * trained) + kTextBytes * tensors + kManifestBytes;
}

CheckpointCounts CountCheckpoints(const CheckpointConfig& config, int64_t begin, int64_t end,
                                  int64_t present) {
  CheckpointCounts counts;
  if (end <= begin) return counts;
  counts.written = 1;  // the last
  if (config.every() > 0) counts.written += (end - 1) / config.every() - begin / config.every();
  counts.at_a_time = counts.written;
  if (config.keep() > 0) {
    counts.at_a_time = std::clamp<int64_t>(config.keep() + 1 - present, 1, counts.written);
  }
  return counts;
}

absl::StatusOr<std::string> CheckSpace(const std::string& run_dir, const RunConfig& config,
                                       int64_t begin, int64_t end) {
  std::error_code error;
  const fs::space_info space = fs::space(ExistingFolder(run_dir + "/checkpoints"), error);
  if (error || space.capacity == 0) return "";
  const Present present = FindPresent(run_dir);
  const CheckpointConfig checkpoint = WithBest(config);
  const int32_t keep = checkpoint.keep();
  const CheckpointCounts counts = CountCheckpoints(checkpoint, begin, end, present.checkpoints);
  const int64_t bytes = CheckpointBytes(config);
  const int64_t free = static_cast<int64_t>(space.available) + present.unfinished_bytes;
  if (free / bytes >= counts.at_a_time) return "";
  const int64_t needed = keep > 0 ? counts.at_a_time : 1;
  if (free / bytes < needed) {
    const bool several = needed > 1;
    return IoError(absl::StrCat(
        Printable(run_dir), ": too little space for the run's checkpoints: ", FormatBytes(free),
        several ? absl::StrCat(" are free, ", needed, " checkpoints (those of checkpoint.keep, ",
                               config.train().keep_best() ? "the best, " : "",
                               "and the one being written) take ")
                : " are free, a checkpoint takes ",
        FormatBytes(needed * bytes), ": make room, give another --run_dir",
        several ? ", or lower checkpoint.keep" : ""));
  }
  return absl::StrCat("warning: ", Printable(run_dir), ": ", FormatBytes(free), " are free, the ",
                      counts.written, " checkpoints of this run take ",
                      FormatBytes(counts.written * bytes), ": set checkpoint.keep, or make room");
}

}  // namespace hypermoe
