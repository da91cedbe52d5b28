// The checks of config_loader.h that look at more than one field.
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/selections.h"
#include "model/weight_encoder.h"
#include "runtime/config_fields.h"
#include "runtime/config_loader.h"
#include "runtime/family_checks.h"
#include "runtime/hyper_execution.h"
#include "runtime/row_format.h"
#include "runtime/run_length.h"
#include "runtime/task_checks.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Of a file of data.train: what RowSchedule can express.
constexpr double kSmallestShare = 1e-6;

// That nothing is set which the mode does not look at.
absl::Status CheckCapacity(const std::string& path, const CapacityConfig& capacity) {
  // A loaded configuration has every field, so what counts is whether it was changed.
  const CapacityConfig& plain = CapacityConfig::default_instance();
  const bool per_row = capacity.mode() == CapacityConfig::fixed_per_row,
             per_group = capacity.mode() == CapacityConfig::factor_per_group;
  const std::pair<const char*, bool> unused[] = {
      {"tokens_per_row", !per_row && capacity.tokens_per_row() != plain.tokens_per_row()},
      {"factor", !per_group && capacity.factor() != plain.factor()},
      {"group_rows", !per_group && capacity.group_rows() != plain.group_rows()}};
  for (const auto& [field, is_unused] : unused) {
    if (!is_unused) continue;
    return ConfigError(absl::StrCat(
        path, ".", field, " is set, but ", path, ".mode is ",
        CapacityConfig::Mode_Name(capacity.mode()), ", which does not use it: set the mode to ",
        std::string(field) == "tokens_per_row" ? "fixed_per_row" : "factor_per_group",
        ", or remove it"));
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const ModelConfig& model) {
  RETURN_IF_ERROR(CheckFamily(model));
  if (model.kind() == ModelConfig::dense && model.sparse_layers_size() > 0) {
    return ConfigError(
        "model.sparse_layers is set, but a model of kind dense has no sparse blocks: remove it, or "
        "set model.kind to moe or hyper");
  }
  if (model.kind() == ModelConfig::dense) {
    for (const char* field : {"training_capacity", "evaluation_capacity"}) {
      const CapacityConfig& capacity = std::string(field) == "training_capacity"
                                           ? model.training_capacity()
                                           : model.evaluation_capacity();
      if (capacity.mode() == CapacityConfig::none) continue;
      return ConfigError(absl::StrCat("model.", field, ".mode is ",
                                      CapacityConfig::Mode_Name(capacity.mode()),
                                      ", but a model of kind dense has no experts: set it to none, "
                                      "or another model.kind"));
    }
  }
  RETURN_IF_ERROR(CheckCapacity("model.training_capacity", model.training_capacity()));
  RETURN_IF_ERROR(CheckCapacity("model.evaluation_capacity", model.evaluation_capacity()));
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

// That baked HyperExperts, which are one for each expert, can be applied.
absl::Status CheckBaked(const RunConfig& config) {
  const HyperConfig& hyper = config.hyper();
  if (!hyper.baked()) return absl::OkStatus();
  if (config.model().kind() != ModelConfig::hyper || config.model().top_k() != 1 ||
      !SharedBySelection(hyper)) {
    return ConfigError(
        "hyper.baked is set, but the model has no HyperExpert for each expert: that needs "
        "model.kind hyper, model.top_k 1, hyper.condition unselected, selected or weights, and "
        "hyper.z binary");
  }
  if (hyper.execution() == HyperConfig::per_token || hyper.execution() == HyperConfig::bilinear) {
    return ConfigError(absl::StrCat("hyper.execution is ",
                                    HyperConfig::Execution_Name(hyper.execution()),
                                    ", which generates HyperExperts, but hyper.baked is set: set "
                                    "it to source, owner or auto"));
  }
  return absl::OkStatus();
}

absl::Status CheckDropout(const ModelConfig& model) {
  const std::pair<const char*, double> fields[] = {{"embedding_dropout", model.embedding_dropout()},
                                                   {"attention_dropout", model.attention_dropout()},
                                                   {"expert_dropout", model.expert_dropout()}};
  for (const auto& [field, value] : fields) {
    if (value >= 0 || value == -1) continue;
    return ConfigError(absl::StrCat("model.", field, " (", value,
                                    ") must be a probability from 0, or -1 for that of "
                                    "model.dropout: change it"));
  }
  return absl::OkStatus();
}

absl::Status CheckRouting(const RunConfig& config) {
  const ModelConfig& model = config.model();
  if (model.kind() == ModelConfig::dense) return absl::OkStatus();
  if (model.top_k() > model.num_experts()) {
    return ConfigError(absl::StrCat("model.top_k (", model.top_k(),
                                    ") must be at most model.num_experts (", model.num_experts(),
                                    "): change either"));
  }
  return absl::OkStatus();
}

// That experts can be read by the network of condition weights, or that nothing of it is set.
absl::Status CheckWeightEncoder(const ModelConfig& model, const HyperConfig& hyper) {
  if (hyper.condition() != HyperConfig::weights) {
    for (const char* name : {"conv_act", "conv_grad_to_experts"}) {
      const FieldDescriptor& field = *hyper.GetDescriptor()->FindFieldByName(name);
      // A loaded configuration has every field, so what counts is whether it was changed.
      if (ValueText(hyper, field) == ValueText(HyperConfig::default_instance(), field)) continue;
      return ConfigError(absl::StrCat("hyper.", name, " is set, but hyper.condition is ",
                                      HyperConfig::Condition_Name(hyper.condition()),
                                      ", which does not use it: set hyper.condition to weights, "
                                      "or leave it out"));
    }
    return absl::OkStatus();
  }
  if (WeightEncoder::Reads(model.ffn_size(), model.hidden_size()) &&
      hyper.expert_embedding_dim() == WeightEncoder::kWidth) {
    return absl::OkStatus();
  }
  return ConfigError(absl::StrCat(
      "hyper.condition is weights, whose convolutional network needs model.ffn_size from ",
      WeightEncoder::kRows, " to ", 2 * WeightEncoder::kRows - 1, ", model.hidden_size from ",
      WeightEncoder::kColumns, " to ", 2 * WeightEncoder::kColumns - 1,
      " and hyper.expert_embedding_dim ", WeightEncoder::kWidth, ", but they are ",
      model.ffn_size(), ", ", model.hidden_size(), " and ", hyper.expert_embedding_dim(),
      ": change them, or hyper.condition"));
}

// That the execution can do what the other fields ask for.
absl::Status CheckHyper(const RunConfig& config) {
  const HyperConfig& hyper = config.hyper();
  if (config.model().kind() != ModelConfig::hyper) return absl::OkStatus();
  if (hyper.z() == HyperConfig::one_minus_prob && hyper.condition() != HyperConfig::unselected &&
      hyper.condition() != HyperConfig::weights) {
    return ConfigError(absl::StrCat("hyper.z is one_minus_prob, but hyper.condition is ",
                                    HyperConfig::Condition_Name(hyper.condition()),
                                    ": only conditions unselected and weights weigh experts by "
                                    "their probabilities; change either"));
  }
  RETURN_IF_ERROR(CheckWeightEncoder(config.model(), hyper));
  const HyperConfig::Execution execution = hyper.execution();
  if (execution != HyperConfig::source && execution != HyperConfig::owner) return absl::OkStatus();
  const std::string name = HyperConfig::Execution_Name(execution);
  if (!SharedBySelection(hyper)) {
    return ConfigError(absl::StrCat(
        "hyper.execution is ", name, ", which shares HyperExperts among tokens, but with ",
        hyper.condition() == HyperConfig::hidden ? "hyper.condition hidden"
                                                 : "hyper.z one_minus_prob",
        " every token has its own: set hyper.execution to bilinear or auto"));
  }
  if (!NumSelections(config.model().num_experts(), config.model().top_k()).has_value()) {
    return ConfigError(absl::StrCat("hyper.execution is ", name, ", but top ",
                                    config.model().top_k(), " of ", config.model().num_experts(),
                                    " experts are too many selections to tell apart: set "
                                    "hyper.execution to bilinear or auto"));
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

// That the family's rows can be made, and that nothing is set which they do not look at.
absl::Status CheckRows(const DataConfig& data, const ModelConfig& model) {
  RETURN_IF_ERROR(MakeRowFormat(data, model).status());
  if (model.family() == ModelConfig::switch_transformers) return absl::OkStatus();
  const DataConfig& plain = DataConfig::default_instance();
  const std::pair<const char*, bool> unused[] = {
      {"noise_density", data.noise_density() != plain.noise_density()},
      {"mean_span_length", data.mean_span_length() != plain.mean_span_length()}};
  for (const auto& [field, is_set] : unused) {
    if (!is_set) continue;
    return ConfigError(absl::StrCat("data.", field, " is set, but model.family is ",
                                    ModelConfig::Family_Name(model.family()),
                                    ", which predicts every next token and fills no gaps: remove "
                                    "it, or set model.family to switch_transformers"));
  }
  return absl::OkStatus();
}

absl::Status CheckTrainFiles(const DataConfig& data) {
  double sum = 0;
  for (const TrainFile& file : data.train()) sum += file.weight();
  std::set<std::string> seen;
  for (const TrainFile& file : data.train()) {
    if (file.prefix().empty()) {
      return ConfigError(
          "data.train has an entry without a prefix: name the token file, such as train { prefix: "
          "\"data/mine\" }");
    }
    if (!seen.insert(file.prefix()).second) {
      return ConfigError(absl::StrCat("data.train names ", file.prefix(),
                                      " twice: name it once, with the sum of the weights"));
    }
    if (file.weight() < kSmallestShare * sum) {
      return ConfigError(absl::StrCat("data.train: the weight of ", file.prefix(), " (",
                                      file.weight(), ") is less than a millionth of all (", sum,
                                      "): raise it, or leave the file out"));
    }
  }
  return absl::OkStatus();
}

// That nothing is set which the optimizer does not look at.
absl::Status CheckOptimizer(const OptimizerConfig& optimizer) {
  if (optimizer.min_learning_rate() > optimizer.learning_rate()) {
    return ConfigError(absl::StrCat("optimizer.min_learning_rate (", optimizer.min_learning_rate(),
                                    ") must be at most optimizer.learning_rate (",
                                    optimizer.learning_rate(), "): change either"));
  }
  const bool adafactor = optimizer.kind() == OptimizerConfig::adafactor;
  using Names = std::vector<std::string>;
  const Names of_adamw = {"beta1", "beta2", "epsilon", "weight_decay", "no_decay", "zero1"};
  const Names of_adafactor = {"decay_rate",
                              "epsilon1",
                              "epsilon2",
                              "clipping_threshold",
                              "min_dim_size_to_factor",
                              "multiply_by_parameter_scale"};
  for (const std::string& name : adafactor ? of_adamw : of_adafactor) {
    const FieldDescriptor& field = *optimizer.GetDescriptor()->FindFieldByName(name);
    // A loaded configuration has every field, so what counts is whether it was changed.
    if (ValueText(optimizer, field) == ValueText(OptimizerConfig::default_instance(), field))
      continue;
    return ConfigError(absl::StrCat(
        "optimizer.", name, " is set, but optimizer.kind is ",
        OptimizerConfig::Kind_Name(optimizer.kind()),
        name == "zero1" ? ", whose small state every rank keeps whole" : ", which does not use it",
        ": set optimizer.kind to ", adafactor ? "adamw" : "adafactor", ", or remove it"));
  }
  return absl::OkStatus();
}

absl::Status CheckLossNorm(const RunConfig& config) {
  if (config.train().loss_norm() == TrainConfig::all_tokens || !config.data().task().empty())
    return absl::OkStatus();
  return ConfigError(
      "train.loss_norm is own_means, but without data.task every row has equally many labels, so "
      "that the means of all micro-batches and ranks count like their tokens: leave it out");
}

// That a training run has what Hugging Face's habits are about.
absl::Status CheckRouterHabits(const RunConfig& config) {
  const ModelConfig& model = config.model();
  if (model.router_jitter_in_place() && model.router_jitter() == 0) {
    return ConfigError(
        "model.router_jitter_in_place is set, but model.router_jitter is 0, so that there is no "
        "jitter: set it above 0, or leave model.router_jitter_in_place out");
  }
  if (model.router_choice_rounded() && config.runtime().dtype() != RuntimeConfig::bfloat16) {
    return ConfigError(
        absl::StrCat("model.router_choice_rounded is set, but runtime.dtype is ",
                     RuntimeConfig::Dtype_Name(config.runtime().dtype()),
                     ", in which no probability is rounded: set it to bfloat16, or leave "
                     "model.router_choice_rounded out"));
  }
  return absl::OkStatus();
}

// The first difference below `path`, as an error.
absl::Status CompareFields(const Message& before, const Message& now, const std::string& path,
                           const std::string& run_dir) {
  for (int i = 0; i < before.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *before.GetDescriptor()->field(i);
    const std::string field_path = JoinPath(path, field.name());
    if (field.message_type() != nullptr && !field.is_repeated()) {
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

absl::Status ValidateModel(const RunConfig& config) {
  RETURN_IF_ERROR(CheckModel(config.model()));
  RETURN_IF_ERROR(CheckDropout(config.model()));
  RETURN_IF_ERROR(CheckRouting(config));
  RETURN_IF_ERROR(CheckHyper(config));
  return CheckBaked(config);
}

absl::Status ValidateConfig(const RunConfig& config) {
  RETURN_IF_ERROR(ValidateModel(config));
  if (config.hyper().baked()) {
    return ConfigError(
        "hyper.baked is set: a model whose HyperExperts have replaced their hypernetwork cannot be "
        "trained; train the model that it was exported from");
  }
  RETURN_IF_ERROR(CheckTokenizer(config));
  RETURN_IF_ERROR(CheckTaskFields(config));
  if (config.data().task().empty()) {
    RETURN_IF_ERROR(CheckRows(config.data(), config.model()));
    RETURN_IF_ERROR(CheckTrainFiles(config.data()));
  }
  const TrainConfig& train = config.train();
  if (train.micro_batches() > train.batch_size()) {
    return ConfigError(absl::StrCat("train.micro_batches (", train.micro_batches(),
                                    ") must be at most train.batch_size (", train.batch_size(),
                                    "): change either"));
  }
  RETURN_IF_ERROR(CheckLossNorm(config));
  RETURN_IF_ERROR(CheckRouterHabits(config));
  RETURN_IF_ERROR(CheckOptimizer(config.optimizer()));
  RETURN_IF_ERROR(CheckWarmup(config.optimizer()));
  RETURN_IF_ERROR(CheckLength(config));
  if (config.mesh().device() == MeshConfig::cpu &&
      config.mesh().gpu_transport() != MeshConfig::nccl) {
    return ConfigError(
        "mesh.gpu_transport is host_staged, but mesh.device is cpu, where nothing travels between "
        "GPUs: set mesh.device=cuda, or leave mesh.gpu_transport out");
  }
  return absl::OkStatus();
}

absl::Status CheckResumable(const RunConfig& before, const RunConfig& now,
                            const std::string& run_dir) {
  // Absent fields count as their defaults, in the sections of lists too.
  RunConfig complete_before = before, complete_now = now;
  FillDefaults(&complete_before);
  FillDefaults(&complete_now);
  return CompareFields(complete_before, complete_now, "", run_dir);
}

}  // namespace hypermoe
