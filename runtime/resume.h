// How a run begins: from its own newest checkpoint that is intact, from another model, or anew.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "parallel/process_mesh.h"
#include "runtime/pretrain.h"
#include "runtime/status.h"
#include "runtime/trainer.h"

namespace hypermoe {

// Fills `trainer` from the newest checkpoint of options.run_dir and returns its step; where there
// is none, from train.init_from, or not at all, and returns nothing.
//
// A checkpoint in which any rank finds damage is named on rank 0's stderr, with what is damaged,
// and left as it is; all ranks then try the one before (CheckpointSteps has the order). DataError
// if none is intact. What is wrong with the command, the configuration or the data is no damage and
// ends the search: UsageError, ConfigError. No file changes, and a checkpoint changes `trainer`
// only once all ranks have read and checked all of it. `data_fingerprint`: of the data now.
// Collective over the world, the same result on every rank.
absl::StatusOr<std::optional<int64_t>> ResumeOrStart(const PretrainOptions& options,
                                                     const std::string& data_fingerprint,
                                                     const ProcessMesh& mesh, Trainer& trainer);

}  // namespace hypermoe
