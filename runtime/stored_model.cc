#include "runtime/stored_model.h"

#include <utility>

#include "runtime/checkpoint_folder.h"
#include "runtime/checkpoint_tensors.h"

namespace hypermoe {

absl::StatusOr<StoredModel> OpenStoredModel(const std::string& path) {
  StoredModel stored;
  if (IsModelFolder(path)) {
    ASSIGN_OR_RETURN(stored.model, OpenModelFolder(path));
    stored.info.config = stored.model.config;
    stored.info.source_config = stored.model.config_json;
    return stored;
  }
  ASSIGN_OR_RETURN(stored.checkpoint, ResolveCheckpoint(path));
  ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadManifest(stored.checkpoint));
  stored.info = manifest.info;
  stored.model.config = manifest.info.config;
  stored.model.config_json = manifest.info.source_config;
  stored.model.tensors = std::make_shared<CheckpointTensors>(stored.checkpoint, manifest,
                                                             CheckpointTensors::Part::kParameters);
  if (manifest.info.has_moments) {
    stored.moments = std::make_shared<CheckpointTensors>(stored.checkpoint, std::move(manifest),
                                                         CheckpointTensors::Part::kMoments);
  }
  return stored;
}

}  // namespace hypermoe
