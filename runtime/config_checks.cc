// The checks of config_loader.h that look at more than one field.
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/config_fields.h"
#include "runtime/config_loader.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

absl::Status CheckModel(const ModelConfig& model) {
  if (model.hidden_size() % model.num_heads() != 0) {
    return ConfigError(absl::StrCat("model.hidden_size (", model.hidden_size(),
                                    ") must be a multiple of model.num_heads (", model.num_heads(),
                                    "): change either"));
  }
  if (model.kind() == ModelConfig::dense && model.sparse_layers_size() > 0) {
    return ConfigError(
        "model.sparse_layers is set, but a model of kind dense has no sparse blocks: remove it, or "
        "set model.kind to moe or hyper");
  }
  std::set<int> seen;
  for (const int layer : model.sparse_layers()) {
    if (layer >= model.num_layers()) {
      return ConfigError(absl::StrCat("model.sparse_layers names block ", layer,
                                      ", but model.num_layers is ", model.num_layers(),
                                      ": blocks count from 0 to ", model.num_layers() - 1));
    }
    if (!seen.insert(layer).second) {
      return ConfigError(
          absl::StrCat("model.sparse_layers names block ", layer, " twice: name it once"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTokenizer(const RunConfig& config) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      MakeTokenizer(config.data().tokenizer());
  if (!tokenizer.ok()) {
    return ConfigError(absl::StrCat("data.tokenizer: ", tokenizer.status().message()));
  }
  if ((*tokenizer)->vocab_size() > config.model().vocab_size()) {
    return ConfigError(absl::StrCat("model.vocab_size (", config.model().vocab_size(),
                                    ") must be at least ", (*tokenizer)->vocab_size(),
                                    ", the ids of data.tokenizer ", config.data().tokenizer(),
                                    ": raise it"));
  }
  return absl::OkStatus();
}

// The first difference below `path`, as an error; absent fields count as their defaults.
absl::Status CompareFields(const Message& before, const Message& now, const std::string& path,
                           const std::string& run_dir) {
  for (int i = 0; i < before.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *before.GetDescriptor()->field(i);
    const std::string field_path = JoinPath(path, field.name());
    if (field.message_type() != nullptr) {
      RETURN_IF_ERROR(CompareFields(before.GetReflection()->GetMessage(before, &field),
                                    now.GetReflection()->GetMessage(now, &field), field_path,
                                    run_dir));
      continue;
    }
    if (field.options().GetExtension(resumable_change)) continue;
    const std::string old_value = ValueText(before, field), new_value = ValueText(now, field);
    if (old_value != new_value) {
      return ConfigError(absl::StrCat(field_path, " was ", old_value, " in ", run_dir, " and is ",
                                      new_value,
                                      " now: give the same value, or another --run_dir"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateConfig(const RunConfig& config) {
  RETURN_IF_ERROR(CheckModel(config.model()));
  RETURN_IF_ERROR(CheckTokenizer(config));
  const TrainConfig& train = config.train();
  if (train.micro_batches() > train.batch_size()) {
    return ConfigError(absl::StrCat("train.micro_batches (", train.micro_batches(),
                                    ") must be at most train.batch_size (", train.batch_size(),
                                    "): change either"));
  }
  const OptimizerConfig& optimizer = config.optimizer();
  if (optimizer.min_learning_rate() > optimizer.learning_rate()) {
    return ConfigError(absl::StrCat("optimizer.min_learning_rate (", optimizer.min_learning_rate(),
                                    ") must be at most optimizer.learning_rate (",
                                    optimizer.learning_rate(), "): change either"));
  }
  if (optimizer.warmup_steps() > train.steps()) {
    return ConfigError(absl::StrCat("optimizer.warmup_steps (", optimizer.warmup_steps(),
                                    ") must be at most train.steps (", train.steps(),
                                    "): change either"));
  }
  if (config.mesh().device() == MeshConfig::cuda) {
    return ConfigError(
        "mesh.device is cuda, but this build has no CUDA support: set mesh.device=cpu");
  }
  return absl::OkStatus();
}

absl::Status CheckResumable(const RunConfig& before, const RunConfig& now,
                            const std::string& run_dir) {
  return CompareFields(before, now, "", run_dir);
}

}  // namespace hypermoe
