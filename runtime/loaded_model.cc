#include "runtime/loaded_model.h"

#include "runtime/agreement.h"
#include "runtime/trainer.h"

namespace hypermoe {
namespace {

absl::StatusOr<CheckpointInfo> ReadInfo(const std::string& path, std::string* checkpoint) {
  ASSIGN_OR_RETURN(*checkpoint, ResolveCheckpoint(path));
  return ReadCheckpointInfo(*checkpoint);
}

// A checkpoint is read in the dtype it was written in; another one is a second model with its
// values.
void ConvertTo(RuntimeConfig::Dtype dtype, LoadedModel* loaded) {
  RunConfig config = loaded->info.config;
  config.mutable_runtime()->set_dtype(dtype);
  std::unique_ptr<Gpt2> model = MakeModel(config, loaded->mesh);
  for (size_t i = 0; i < model->parameters().size(); ++i) {
    model->parameters()[i].value.detach().copy_(loaded->model->parameters()[i].value.detach());
  }
  loaded->buffers = MakeFlatBuffers(model->parameters());
  loaded->model = std::move(model);
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const std::string& path, const std::string& dtype,
                                      std::shared_ptr<Communicator> world, int expert_parallel) {
  LoadedModel loaded;
  std::string checkpoint;
  absl::StatusOr<CheckpointInfo> info = ReadInfo(path, &checkpoint);
  RETURN_IF_ERROR(Agree(*world, info.status()));
  loaded.info = *std::move(info);
  const ModelConfig& model = loaded.info.config.model();
  const int64_t num_experts = model.kind() == ModelConfig::dense ? 0 : model.num_experts();
  loaded.mesh = ProcessMesh::Create(world, expert_parallel > 0
                                               ? expert_parallel
                                               : DefaultExpertDegree(world->size(), num_experts));
  loaded.model = MakeModel(loaded.info.config, loaded.mesh);
  loaded.buffers = MakeFlatBuffers(loaded.model->parameters());
  RETURN_IF_ERROR(
      Agree(*world, LoadCheckpoint(checkpoint, model.num_experts(), loaded.buffers, nullptr)));
  loaded.model->ParametersChanged();
  RuntimeConfig::Dtype wanted = loaded.info.config.runtime().dtype();
  if (!dtype.empty() && !RuntimeConfig::Dtype_Parse(dtype, &wanted)) {
    return UsageError("runtime.dtype is '" + dtype + "': expected float32, float64 or bfloat16");
  }
  if (wanted != loaded.info.config.runtime().dtype()) ConvertTo(wanted, &loaded);
  return loaded;
}

}  // namespace hypermoe
