#include "runtime/loaded_model.h"

#include <utility>

#include "runtime/agreement.h"
#include "runtime/trainer.h"

namespace hypermoe {

absl::StatusOr<LoadedModel> LoadModel(const std::string& path, const std::string& dtype,
                                      std::shared_ptr<Communicator> world, int expert_parallel) {
  const absl::StatusOr<StoredModel> stored = OpenStoredModel(path);
  RETURN_IF_ERROR(Agree(*world, stored.status()));
  LoadedModel loaded;
  loaded.info = stored->info;
  loaded.checkpoint = stored->checkpoint;
  RunConfig config = stored->model.config;
  if (!dtype.empty()) {
    RuntimeConfig::Dtype wanted;
    if (!RuntimeConfig::Dtype_Parse(dtype, &wanted)) {
      return UsageError("runtime.dtype is '" + dtype + "': expected float32, float64 or bfloat16");
    }
    config.mutable_runtime()->set_dtype(wanted);
  }
  config.mutable_mesh()->set_expert_parallel(expert_parallel);
  loaded.mesh = ProcessMesh::Create(world, ExpertDegree(config, world->size()));
  loaded.model = MakeModel(config, loaded.mesh);
  loaded.buffers = MakeFlatBuffers(loaded.model->parameters());
  RETURN_IF_ERROR(Agree(*world, FillParameters(*stored->model.tensors, path,
                                               config.model().num_experts(), loaded.buffers)));
  loaded.model->ParametersChanged();
  return loaded;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const RunConfig& config) {
  ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, MakeTokenizer(config.data().tokenizer()));
  if (tokenizer->vocab_size() > config.model().vocab_size()) {
    return ConfigError("the model's vocabulary is smaller than that of its tokenizer " +
                       config.data().tokenizer() + ": it cannot read a text");
  }
  return tokenizer;
}

}  // namespace hypermoe
