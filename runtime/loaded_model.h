// A model read from a model folder or a checkpoint, at any world size and expert degree.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/language_model.h"
#include "parallel/flat_buffer.h"
#include "parallel/process_mesh.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/status.h"
#include "runtime/stored_model.h"
#include "runtime/tokenizer.h"

namespace hypermoe {

struct LoadedModel {
  CheckpointInfo info;     // as in StoredModel
  std::string checkpoint;  // likewise
  ProcessMesh mesh;
  std::unique_ptr<LanguageModel> model;
  std::vector<FlatBuffer> buffers;  // of the model's parameters
};

// `path`: model folder, run folder (ResolveCheckpoint) or checkpoint folder. `dtype`: "" as
// stored (a folder of float16 or bfloat16 becomes float32), "float32", "float64" or "bfloat16".
// `expert_parallel`: 0 is the default degree. Collective over `world`; the same status on every
// rank.
absl::StatusOr<LoadedModel> LoadModel(const std::string& path, const std::string& dtype,
                                      std::shared_ptr<Communicator> world, int expert_parallel);

// The tokenizer of a model's text. ConfigError if it has ids that the model does not.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const RunConfig& config);

}  // namespace hypermoe
