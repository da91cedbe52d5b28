// The config.json of a model that has no such file yet, or has changed since it was read.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/model_folder_config.h"
#include "runtime/model_folder_keys.h"
#include "runtime/strict_json.h"
#include "runtime/tokenizer.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
using nlohmann::json;

// More than any row has: expert_capacity has no word for none.
constexpr int kUnlimitedCapacity = 65536;

json FieldValue(const std::string& path, RunConfig* config) {
  const auto [section, field] = FindPlace(path, config);
  const Reflection& get = *section->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return get.GetBool(*section, field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return FolderWord(*get.GetEnum(*section, field));
    case FieldDescriptor::CPPTYPE_INT32:
      return get.GetInt32(*section, field);
    default:
      return get.GetDouble(*section, field);
  }
}

json Block(const std::vector<FolderKey>& keys, RunConfig* config) {
  json block = json::object();
  for (const FolderKey& key : keys) block[key.key] = FieldValue(key.field, config);
  return block;
}

json CapacityBlock(const CapacityConfig& capacity) {
  json block = {{"mode", CapacityConfig::Mode_Name(capacity.mode())}};
  if (capacity.mode() == CapacityConfig::factor_per_group) {
    block["value"] = capacity.factor();
    // Beyond the format: see model_folder_config.cc.
    if (capacity.group_rows() != 0) block["group_rows"] = capacity.group_rows();
  } else {
    block["value"] = capacity.tokens_per_row();
  }
  return block;
}

json HypermoeBlock(RunConfig* config) {
  const ModelConfig::Kind kind = config->model().kind();
  json block = json::object();
  if (kind == ModelConfig::hyper) {
    block = Block(HyperKeys(), config);
    RunConfig plain;
    for (const FolderKey& key : WeightEncoderKeys()) {
      json value = FieldValue(key.field, config);
      if (config->hyper().condition() == HyperConfig::weights &&
          value != FieldValue(key.field, &plain))
        block[key.key] = std::move(value);
    }
  }
  if (kind == ModelConfig::adapter) block = Block(AdapterKeys(), config);
  if (!block.empty()) block["act"] = "relu";
  block["kind"] = FieldValue("model.kind", config);
  if (config->hyper().baked()) block["baked"] = true;
  return block;
}

json Gpt2ModelKeys(RunConfig config) {
  const ModelConfig& model = config.model();
  json top = Block(Gpt2Keys(), &config);
  const auto dropout = [&](double own) { return own == -1 ? model.dropout() : own; };
  top["embd_pdrop"] = dropout(model.embedding_dropout());
  top["attn_pdrop"] = dropout(model.attention_dropout());
  top["n_inner"] = model.ffn_size();
  const bool sparse = model.kind() != ModelConfig::dense;
  top["model_type"] = sparse ? "hypermoe_gpt2" : "gpt2";
  top["architectures"] = json::array({sparse ? "HyperMoeGPT2LMHeadModel" : "GPT2LMHeadModel"});
  if (!sparse) return top;
  json& moe = top["moe"] = Block(MoeKeys(), &config);
  moe["sparse_layers"] = SparseLayers(model);
  moe["capacity"] = CapacityBlock(model.evaluation_capacity());
  moe["losses"] = Block(LossKeys(), &config);
  return top;
}

// That switch_transformers or t5, which can say little, can say what the model computes.
absl::Status CheckDescribable(const ModelConfig& model) {
  const auto refuse = [&](const std::string& field, const std::string& value,
                          const std::string& only) {
    return ConfigError(
        absl::StrCat("model.", field, " is ", value, ", but a model folder of type ",
                     model.kind() == ModelConfig::dense ? "t5" : "switch_transformers",
                     " cannot say so: there it is ", only));
  };
  if (model.kind() == ModelConfig::dense) {
    return model.tie_embeddings() ? absl::OkStatus() : refuse("tie_embeddings", "false", "true");
  }
  if (model.top_k() != 1) return refuse("top_k", absl::StrCat(model.top_k()), "1");
  if (model.evaluation_capacity().mode() == CapacityConfig::factor_per_group)
    return refuse("evaluation_capacity.mode", "factor_per_group", "fixed_per_row or none");
  return absl::OkStatus();
}

// Number of the blocks of a stack that are sparse.
int64_t CountSparse(const ModelConfig& model, Stack stack) {
  const std::vector<int64_t> layers = SparseLayers(model);
  return std::count_if(layers.begin(), layers.end(),
                       [&](int64_t block) { return StackOf(model, block) == stack; });
}

absl::StatusOr<json> EncoderDecoderModelKeys(RunConfig config) {
  const ModelConfig& model = config.model();
  RETURN_IF_ERROR(CheckDescribable(model));
  const bool sparse = model.kind() != ModelConfig::dense;
  json top = Block(sparse ? SwitchKeys() : T5Keys(), &config);
  top["d_kv"] = HeadSize(model);
  top["num_decoder_layers"] = model.num_decoder_layers();
  top["decoder_start_token_id"] = model.decoder_start_id();
  top["model_type"] = sparse ? "switch_transformers" : "t5";
  top["architectures"] = json::array(
      {sparse ? "SwitchTransformersForConditionalGeneration" : "T5ForConditionalGeneration"});
  if (!sparse) {
    top["feed_forward_proj"] = top["dense_act_fn"];
    return top;
  }
  const CapacityConfig& capacity = model.evaluation_capacity();
  top["expert_capacity"] =
      capacity.mode() == CapacityConfig::none ? kUnlimitedCapacity : capacity.tokens_per_row();
  top["encoder_sparse_step"] = model.encoder_sparse_step();
  top["decoder_sparse_step"] = model.decoder_sparse_step();
  top["num_sparse_encoder_layers"] = CountSparse(model, Stack::kEncoder);
  top["num_sparse_decoder_layers"] = CountSparse(model, Stack::kDecoder);
  return top;
}

// Every key that the model has a say in.
absl::StatusOr<json> ModelKeys(RunConfig config) {
  absl::StatusOr<json> top = Gpt2ModelKeys(config);
  if (HasEncoder(config.model())) top = EncoderDecoderModelKeys(config);
  const ModelConfig::Kind kind = config.model().kind();
  if (!top.ok() || kind == ModelConfig::dense || kind == ModelConfig::moe) return top;
  (*top)["hypermoe"] = HypermoeBlock(&config);
  // Where a reader that does not know the block may look for it.
  if (kind == ModelConfig::hyper && config.hyper().baked()) (*top)["baked"] = true;
  return top;
}

// What Hugging Face writes beside them.
void AddFixedKeys(const RunConfig& model, const std::string& dtype, json* top) {
  top->update({{"torch_dtype", dtype}, {"use_cache", true}});
  if (HasEncoder(model.model())) {
    top->update({{"is_encoder_decoder", true},
                 {"feed_forward_proj", (*top)["dense_act_fn"]},
                 {"is_gated_act", false}});
    if (model.model().kind() == ModelConfig::dense) return;
    top->update({{"add_router_probs", false},
                 {"num_selected_experts", 1},
                 {"router_dtype", "float32"},
                 {"router_ignore_padding_tokens", false},
                 {"router_type", "tokens_masked"}});
    return;
  }
  json end_of_text;
  if (const auto tokenizer = MakeTokenizer(model.data().tokenizer()); tokenizer.ok())
    end_of_text = (*tokenizer)->end_of_text();
  top->update({{"add_cross_attention", false},
               {"bos_token_id", end_of_text},
               {"eos_token_id", end_of_text},
               {"reorder_and_upcast_attn", false},
               {"scale_attn_by_inverse_layer_idx", false},
               {"scale_attn_weights", true},
               {"summary_activation", nullptr},
               {"summary_first_dropout", 0.1},
               {"summary_proj_to_labels", true},
               {"summary_type", "cls_index"},
               {"summary_use_proj", true},
               {"tie_word_embeddings", true}});
}

// Makes in `target` the changes that lead from `before` to `now`.
void ApplyChanges(const json& before, const json& now, json* target) {
  for (const auto& [key, value] : before.items()) {
    if (!now.contains(key)) target->erase(key);
  }
  for (const auto& [key, value] : now.items()) {
    const json old = before.value(key, json());
    if (old == value) continue;
    json& place = (*target)[key];
    if (value.is_object() && old.is_object() && place.is_object()) {
      ApplyChanges(old, value, &place);
    } else {
      place = value;
    }
  }
}

}  // namespace

absl::StatusOr<std::string> FolderConfigText(const RunConfig& model, const std::string& source,
                                             const std::string& dtype) {
  ASSIGN_OR_RETURN(json keys, ModelKeys(model));
  if (source.empty()) {
    AddFixedKeys(model, dtype, &keys);
    return keys.dump(2) + "\n";
  }
  const std::string name = "the config.json that the model came with";
  ASSIGN_OR_RETURN(const RunConfig before, ReadFolderConfig(name, source));
  ASSIGN_OR_RETURN(const json old_keys, ModelKeys(before));
  if (keys == old_keys) return source;
  ASSIGN_OR_RETURN(json top, ParseStrictJson(name, source));
  ApplyChanges(old_keys, keys, &top);
  // Another type has other defaults: what was left out because it was one has to be written.
  if (keys["model_type"] != old_keys["model_type"]) top.update(keys);
  return top.dump(2) + "\n";
}

}  // namespace hypermoe
