// Models into runs and out of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/model_folder_writer.h"
#include "runtime/status.h"

namespace hypermoe {

struct ImportOptions {
  std::string from;                    // model folder
  std::string run_dir;                 // made if missing; must not hold a run
  std::vector<std::string> overrides;  // PATH=VALUE, changes to the configuration of the run
  int threads = 1;
};

// Makes a run folder whose checkpoint, of step 0, holds the model: its tensors in their dtypes, and
// the text of its config.json, so that it can be exported as it was. Collective over `world`; each
// rank reads and writes its share of the tensors. Returns the checkpoint's folder.
absl::StatusOr<std::string> ImportModel(const ImportOptions& options, Communicator& world);

struct ExportOptions {
  std::string from;    // model folder, run folder or checkpoint folder
  std::string output;  // see WriteModelFolder
  int64_t max_shard_bytes = kDefaultShardBytes;
  bool bake = false;  // see bake.h
};

// Writes the model as a folder, and says on stderr which options its config.json has no word for.
// Collective over `world`.
absl::Status ExportModel(const ExportOptions& options, Communicator& world);

}  // namespace hypermoe
