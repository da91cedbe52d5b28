#include "runtime/family_checks.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/config_fields.h"

namespace hypermoe {
namespace {

// Fields that one family alone looks at.
const std::vector<std::string>& OwnFields(ModelConfig::Family family) {
  static const auto& gpt2 = *new std::vector<std::string>{
      "sparse_layers", "embedding_dropout", "attention_dropout", "init_std",
      "router",        "renormalize"};
  static const auto& switch_transformers = *new std::vector<std::string>{"num_decoder_layers",
                                                                         "head_size",
                                                                         "encoder_sparse_step",
                                                                         "decoder_sparse_step",
                                                                         "relative_buckets",
                                                                         "expert_dropout",
                                                                         "relative_max_distance",
                                                                         "tie_embeddings",
                                                                         "pad_id",
                                                                         "decoder_start_id",
                                                                         "initializer_factor",
                                                                         "end_id",
                                                                         "router_bias"};
  return family == ModelConfig::gpt2 ? gpt2 : switch_transformers;
}

// The value of a field that is not its default: a loaded configuration has every field, so what
// counts is whether it was changed.
std::optional<std::string> ChangedValue(const ModelConfig& model, const std::string& name) {
  const auto& field = *ModelConfig::descriptor()->FindFieldByName(name);
  std::string value = ValueText(model, field);
  if (value == ValueText(ModelConfig::default_instance(), field)) return std::nullopt;
  return value;
}

absl::Status CheckUnused(const ModelConfig& model) {
  const ModelConfig::Family other =
      model.family() == ModelConfig::gpt2 ? ModelConfig::switch_transformers : ModelConfig::gpt2;
  for (const std::string& name : OwnFields(other)) {
    const std::optional<std::string> value = ChangedValue(model, name);
    if (!value.has_value()) continue;
    return ConfigError(absl::StrCat("model.", name, " is ", *value, ", but model.family is ",
                                    ModelConfig::Family_Name(model.family()),
                                    ", which does not use it: leave it out, or set ",
                                    "model.family to ", ModelConfig::Family_Name(other)));
  }
  return absl::OkStatus();
}

// That a model without experts sets nothing that is of experts alone and of this family, or one of
// Hugging Face's habits with them.
absl::Status CheckUnusedByDense(const ModelConfig& model) {
  if (model.kind() != ModelConfig::dense) return absl::OkStatus();
  for (const char* name : {"expert_dropout", "encoder_sparse_step", "decoder_sparse_step",
                           "router_bias", "router_jitter_in_place", "router_choice_rounded"}) {
    const std::optional<std::string> value = ChangedValue(model, name);
    if (!value.has_value()) continue;
    return ConfigError(absl::StrCat("model.", name, " is ", *value,
                                    ", but a model of kind dense has no experts: leave it out, or "
                                    "set another model.kind"));
  }
  return absl::OkStatus();
}

absl::Status CheckBalanceScope(const ModelConfig& model) {
  const BalanceLossConfig& loss = model.balance_loss();
  if (loss.scope() != BalanceLossConfig::stack_row) {
    if (!loss.dropped_count_as_first()) return absl::OkStatus();
    return ConfigError(absl::StrCat(
        "model.balance_loss.dropped_count_as_first is set, but model.balance_loss.scope is ",
        BalanceLossConfig::Scope_Name(loss.scope()),
        ", which does not use it: set the scope to stack_row, or leave it out"));
  }
  if (!HasEncoder(model)) {
    return ConfigError(
        "model.balance_loss.scope is stack_row, but model.family gpt2 has one stack of blocks: set "
        "it to row or micro_batch");
  }
  const std::pair<const char*, double> cv2_losses[] = {
      {"importance_coefficient", model.importance_coefficient()},
      {"load_coefficient", model.load_coefficient()}};
  for (const auto& [name, value] : cv2_losses) {
    if (value == 0) continue;
    return ConfigError(absl::StrCat("model.", name, " is ", value,
                                    ", but model.balance_loss.scope is stack_row, which that loss "
                                    "does not have: set the scope to row or micro_batch, or the "
                                    "coefficient to 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckSparseSteps(const ModelConfig& model) {
  if (model.kind() == ModelConfig::dense || !SparseLayers(model).empty()) return absl::OkStatus();
  return ConfigError(absl::StrCat(
      "model.kind is ", ModelConfig::Kind_Name(model.kind()),
      ", but no block is sparse with model.encoder_sparse_step ", model.encoder_sparse_step(),
      " of ", model.num_layers(), " blocks and model.decoder_sparse_step ",
      model.decoder_sparse_step(), " of ", model.num_decoder_layers(),
      ": set a step to 1, or to at least 2 for a stack of at least 2 blocks, or model.kind to "
      "dense"));
}

// That every bucket of relative positions has a distance (kernels/relative_attention.h).
absl::Status CheckRelativePositions(const ModelConfig& model) {
  if (model.relative_buckets() % 2 != 0) {
    return ConfigError(absl::StrCat("model.relative_buckets (", model.relative_buckets(),
                                    ") must be even, for the encoder has half of them in each "
                                    "direction: change it"));
  }
  if (model.relative_max_distance() > model.relative_buckets() / 2) return absl::OkStatus();
  return ConfigError(
      absl::StrCat("model.relative_max_distance (", model.relative_max_distance(),
                   ") must be more than half of model.relative_buckets (", model.relative_buckets(),
                   "), for so many have one distance each in the decoder: change either"));
}

absl::Status CheckIds(const ModelConfig& model) {
  const std::pair<const char*, int> ids[] = {{"pad_id", model.pad_id()},
                                             {"end_id", model.end_id()},
                                             {"decoder_start_id", model.decoder_start_id()}};
  for (const auto& [name, id] : ids) {
    if (id < model.vocab_size()) continue;
    return ConfigError(absl::StrCat("model.", name, " (", id, ") must be below model.vocab_size (",
                                    model.vocab_size(), "): change either"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFamily(const ModelConfig& model) {
  RETURN_IF_ERROR(CheckUnused(model));
  RETURN_IF_ERROR(CheckUnusedByDense(model));
  RETURN_IF_ERROR(CheckBalanceScope(model));
  if (model.head_size() == 0 && model.hidden_size() % model.num_heads() != 0) {
    return ConfigError(absl::StrCat("model.hidden_size (", model.hidden_size(),
                                    ") must be a multiple of model.num_heads (", model.num_heads(),
                                    "): change either"));
  }
  if (!HasEncoder(model)) return absl::OkStatus();
  RETURN_IF_ERROR(CheckSparseSteps(model));
  RETURN_IF_ERROR(CheckRelativePositions(model));
  return CheckIds(model);
}

}  // namespace hypermoe
