// A model at rest: a model folder, a run (its best checkpoint where it keeps one, else its
// newest), or one of its checkpoints.
#pragma once

#include <memory>
#include <string>

#include "runtime/checkpoint_manifest.h"
#include "runtime/model_folder.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

struct StoredModel {
  ModelFolder model;  // of a checkpoint: config is the run's, config_json what it came from, or ""
  CheckpointInfo info;  // of a model folder: its configuration, step 0
  // The folder of the checkpoint, and the optimizer's moments under the names that they have there;
  // "" and none for a model folder or after an import.
  std::string checkpoint;
  std::shared_ptr<const TensorSource> moments;
};

// Tensors are read on demand. Local. Errors of OpenModelFolder, ResolveCheckpoint and ReadManifest.
absl::StatusOr<StoredModel> OpenStoredModel(const std::string& path);

}  // namespace hypermoe
