// Reads, changes, checks and writes run configurations (configs/run.proto).
#pragma once

#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// The configuration in the file `path` ("" for all defaults), with each of `overrides`
// ("model.num_layers=4", "model.sparse_layers=1,3", "data.train=data/mine") applied in order, every
// absent field set to its default, and every number within its documented range. Errors (exit code
// 78) name the field, the value, what is allowed, and for an unknown name the nearest known one; a
// syntax error names file, line and column.
absl::StatusOr<RunConfig> LoadConfig(const std::string& path,
                                     const std::vector<std::string>& overrides);

// The same, but only with what the file or an override sets.
absl::StatusOr<RunConfig> ReadGivenConfig(const std::string& path,
                                          const std::vector<std::string>& overrides);

// Relations between fields that do not depend on the world size: hidden_size divisible by
// num_heads, sparse layers below num_layers and each once, micro_batches at most batch_size,
// min_learning_rate at most learning_rate, and so on.
absl::Status ValidateConfig(const RunConfig& config);

// Those of them that describe the model.
absl::Status ValidateModel(const RunConfig& config);

// Text that LoadConfig reads back to an equal message; every field is written, defaults too.
std::string ConfigText(const RunConfig& config);
// The inverse of ConfigText, for text from a checkpoint; `source` names it in errors.
absl::StatusOr<RunConfig> ParseConfigText(const std::string& text, const std::string& source);

// An error that names the first field whose value differs between the run in `run_dir` and `now`
// and may not (fields not marked resumable_change), with both values.
absl::Status CheckResumable(const RunConfig& before, const RunConfig& now,
                            const std::string& run_dir);

// Writes `config` as run_dir/config.textproto; makes the folder if it is missing. Local.
absl::Status WriteRunConfig(const std::string& run_dir, const RunConfig& config);

}  // namespace hypermoe
