// A model read from a checkpoint, at any world size and expert degree.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/gpt2.h"
#include "parallel/flat_buffer.h"
#include "parallel/process_mesh.h"
#include "runtime/checkpoint.h"
#include "runtime/status.h"

namespace hypermoe {

struct LoadedModel {
  CheckpointInfo info;
  ProcessMesh mesh;
  std::unique_ptr<Gpt2> model;
  std::vector<FlatBuffer> buffers;  // of the model's parameters
};

// `path`: run folder (its newest checkpoint) or checkpoint folder. `dtype`: "" as trained,
// "float32" or "float64". `expert_parallel`: 0 is the default degree. Collective over `world`; the
// same status on every rank.
absl::StatusOr<LoadedModel> LoadModel(const std::string& path, const std::string& dtype,
                                      std::shared_ptr<Communicator> world, int expert_parallel);

}  // namespace hypermoe
