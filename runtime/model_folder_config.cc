#include "runtime/model_folder_config.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/config_fields.h"
#include "runtime/config_loader.h"
#include "runtime/file_util.h"
#include "runtime/hyper_execution.h"
#include "runtime/model_folder_keys.h"
#include "runtime/strict_json.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
using nlohmann::json;

// Switches of Hugging Face's configurations that change what a model computes, and the only value
// that is supported.
struct FixedSwitch {
  const char* key;
  bool value;
};
constexpr FixedSwitch kFixedSwitches[] = {
    {"scale_attn_weights", true},  {"scale_attn_by_inverse_layer_idx", false},
    {"tie_word_embeddings", true}, {"add_cross_attention", false},
    {"is_encoder_decoder", false},
};
// Keys that do so where they are there and neither null nor empty.
constexpr const char* kUnsupportedKeys[] = {"quantization_config", "pruned_heads"};

class ConfigReader {
 public:
  ConfigReader(const std::string& path, const json& top) : path_(path), top_(top) {}

  absl::StatusOr<RunConfig> Read() {
    FillDefaults(&result_);
    ASSIGN_OR_RETURN(const bool sparse, ReadModelType());
    RETURN_IF_ERROR(CheckSwitches());
    RETURN_IF_ERROR(ReadKeys(top_, "", Gpt2Keys()));
    RETURN_IF_ERROR(ReadWidths());
    model().set_kind(ModelConfig::dense);
    if (!sparse) return result_;
    RETURN_IF_ERROR(ReadMoe());
    RETURN_IF_ERROR(ReadHypermoe());
    return result_;
  }

 private:
  ModelConfig& model() { return *result_.mutable_model(); }
  HyperConfig& hyper() { return *result_.mutable_hyper(); }

  std::string Is(const std::string& key, const json& value) const {
    return absl::StrCat(Printable(path_), ": '", key, "' is ", Printable(value.dump()));
  }
  absl::Status Refuse(const std::string& key, const json& value,
                      const std::string& expected) const {
    return DataError(absl::StrCat(Is(key, value), ", expected ", expected));
  }
  absl::Status NotSupported(const std::string& key, const json& value,
                            const std::string& supported) const {
    return ConfigError(
        absl::StrCat(Is(key, value), ", which is not supported by this version: ", supported));
  }

  // Whether the model is sparse.
  absl::StatusOr<bool> ReadModelType() const {
    const json type = top_.value("model_type", json());
    if (type == "gpt2") {
      for (const char* block : {"moe", "hypermoe"}) {
        if (!top_.contains(block)) continue;
        return DataError(absl::StrCat(Printable(path_),
                                      ": 'model_type' is \"gpt2\", which is dense, "
                                      "but there is a block '",
                                      block, "': a sparse model's is \"hypermoe_gpt2\""));
      }
      return false;
    }
    if (type == "hypermoe_gpt2") return true;
    const char* const known = "\"gpt2\" and \"hypermoe_gpt2\" are";
    if (type.is_string()) return NotSupported("model_type", type, known);
    return Refuse("model_type", type, "a text, of which \"gpt2\" and \"hypermoe_gpt2\" are known");
  }

  absl::Status CheckSwitches() const {
    for (const FixedSwitch& fixed : kFixedSwitches) {
      const json value = top_.value(fixed.key, json(fixed.value));
      if (!value.is_boolean()) return Refuse(fixed.key, value, "true or false");
      if (value == fixed.value) continue;
      return NotSupported(fixed.key, value,
                          absl::StrCat("only ", fixed.value ? "true" : "false", " is"));
    }
    for (const char* key : kUnsupportedKeys) {
      const json value = top_.value(key, json());
      if (!value.empty()) return NotSupported(key, value, "only models without it are");
    }
    return absl::OkStatus();
  }

  // Sets the field at `field_path` to `value`.
  absl::Status Put(const std::string& key, const json& value, const std::string& field_path) {
    const auto [section, field] = FindPlace(field_path, &result_);
    const Reflection& set = *section->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_BOOL:
        if (!value.is_boolean()) return Refuse(key, value, AllowedText(*field));
        set.SetBool(section, field, value.get<bool>());
        return absl::OkStatus();
      case FieldDescriptor::CPPTYPE_ENUM: {
        const auto* word =
            value.is_string() ? FindFolderWord(*field, value.get<std::string>()) : nullptr;
        if (word == nullptr) {
          return Refuse(
              key, value,
              absl::StrCat("one of \"", absl::StrJoin(FolderWords(*field), "\", \""), "\""));
        }
        set.SetEnum(section, field, word);
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_INT32:
        if (!value.is_number_integer() || !InRange(value.get<double>(), *field))
          return Refuse(key, value, AllowedText(*field));
        set.SetInt32(section, field, value.get<int32_t>());
        return absl::OkStatus();
      default:
        if (!value.is_number() || !InRange(value.get<double>(), *field))
          return Refuse(key, value, AllowedText(*field));
        set.SetDouble(section, field, value.get<double>());
        return absl::OkStatus();
    }
  }

  absl::Status ReadKeys(const json& block, const std::string& prefix,
                        const std::vector<FolderKey>& keys) {
    for (const FolderKey& key : keys) {
      json value = block.value(key.key, json());
      if (!block.contains(key.key)) {
        if (!key.if_absent.has_value()) continue;
        value = *key.if_absent == static_cast<int64_t>(*key.if_absent)
                    ? json(static_cast<int64_t>(*key.if_absent))
                    : json(*key.if_absent);
      }
      RETURN_IF_ERROR(Put(prefix + key.key, value, key.field));
    }
    return absl::OkStatus();
  }

  // What follows from more than one key.
  absl::Status ReadWidths() {
    const json inner = top_.value("n_inner", json());
    if (!inner.is_null()) {
      RETURN_IF_ERROR(Put("n_inner", inner, "model.ffn_size"));
    } else {
      // At most 4 * 65536, which the field's range allows.
      model().set_ffn_size(4 * model().hidden_size());
    }
    // -1 in embedding_dropout and attention_dropout means: as dropout.
    const double residual = model().dropout();
    for (const char* key : {"embd_pdrop", "attn_pdrop"}) {
      RETURN_IF_ERROR(Put(key, top_.value(key, json(0.1)), "model.dropout"));
      const double value = model().dropout() == residual ? -1 : model().dropout();
      if (key == std::string("embd_pdrop")) {
        model().set_embedding_dropout(value);
      } else {
        model().set_attention_dropout(value);
      }
    }
    model().set_dropout(residual);
    if (model().hidden_size() % model().num_heads() == 0) return absl::OkStatus();
    return DataError(absl::StrCat(Printable(path_), ": 'n_embd' (", model().hidden_size(),
                                  ") is not a multiple of 'n_head' (", model().num_heads(), ")"));
  }

  // The block `key` of `parent`: an object, empty if it is absent.
  absl::StatusOr<json> Block(const json& parent, const std::string& prefix, const char* key) const {
    json block = parent.value(key, json::object());
    if (!block.is_object()) return Refuse(prefix + key, block, "an object");
    return block;
  }

  absl::Status ReadMoe() {
    if (!top_.contains("moe")) {
      return DataError(absl::StrCat(Printable(path_),
                                    ": 'moe' is missing, the block that describes "
                                    "the experts of a hypermoe_gpt2"));
    }
    ASSIGN_OR_RETURN(const json moe, Block(top_, "", "moe"));
    if (!moe.contains("num_experts")) {
      return DataError(absl::StrCat(Printable(path_), ": 'moe.num_experts' is missing"));
    }
    RETURN_IF_ERROR(ReadKeys(moe, "moe.", MoeKeys()));
    if (model().top_k() > model().num_experts()) {
      return Refuse("moe.top_k", moe["top_k"],
                    absl::StrCat("at most 'moe.num_experts' (", model().num_experts(), ")"));
    }
    RETURN_IF_ERROR(ReadSparseLayers(moe));
    RETURN_IF_ERROR(ReadCapacity(moe));
    ASSIGN_OR_RETURN(const json losses, Block(moe, "moe.", "losses"));
    return ReadKeys(losses, "moe.losses.", LossKeys());
  }

  absl::Status ReadSparseLayers(const json& moe) {
    if (!moe.contains("sparse_layers")) {
      for (int layer = 0; layer < model().num_layers(); ++layer) model().add_sparse_layers(layer);
      return absl::OkStatus();
    }
    const json& layers = moe["sparse_layers"];
    const std::string expected = absl::StrCat(
        "a list of blocks from 0 to ", model().num_layers() - 1, ", at least one, each once");
    if (!layers.is_array() || layers.empty()) return Refuse("moe.sparse_layers", layers, expected);
    std::set<int> seen;
    for (const json& layer : layers) {
      if (!layer.is_number_integer() || layer < 0 || layer >= model().num_layers() ||
          !seen.insert(layer.get<int>()).second) {
        return Refuse("moe.sparse_layers", layers, expected);
      }
    }
    for (const int layer : seen) model().add_sparse_layers(layer);
    return absl::OkStatus();
  }

  absl::Status ReadCapacity(const json& moe) {
    ASSIGN_OR_RETURN(const json capacity, Block(moe, "moe.", "capacity"));
    const std::string section = "model.evaluation_capacity.";
    RETURN_IF_ERROR(
        ReadKeys(capacity, "moe.capacity.", {{"mode", "model.evaluation_capacity.mode", {}}}));
    CapacityConfig& evaluation = *model().mutable_evaluation_capacity();
    const json value = capacity.value("value", json());
    if (evaluation.mode() == CapacityConfig::fixed_per_row) {
      RETURN_IF_ERROR(Put("moe.capacity.value", value, section + "tokens_per_row"));
    } else if (evaluation.mode() == CapacityConfig::factor_per_group) {
      RETURN_IF_ERROR(Put("moe.capacity.value", value, section + "factor"));
      // Not part of the format, whose groups are whole micro-batches: written for models that were
      // trained with other ones.
      RETURN_IF_ERROR(Put("moe.capacity.group_rows", capacity.value("group_rows", json(0)),
                          section + "group_rows"));
    }
    *model().mutable_training_capacity() = evaluation;
    return absl::OkStatus();
  }

  absl::Status ReadHypermoe() {
    model().set_kind(ModelConfig::moe);
    if (!top_.contains("hypermoe")) return absl::OkStatus();
    ASSIGN_OR_RETURN(const json block, Block(top_, "", "hypermoe"));
    model().set_kind(ModelConfig::hyper);
    RETURN_IF_ERROR(ReadKeys(block, "hypermoe.", {{"kind", "model.kind", {}}}));
    const bool is_hyper = model().kind() == ModelConfig::hyper;
    if (!is_hyper && model().kind() != ModelConfig::adapter) return absl::OkStatus();
    const json act = block.value("act", json("relu"));
    if (!act.is_string()) return Refuse("hypermoe.act", act, "\"relu\"");
    if (act != "relu") return NotSupported("hypermoe.act", act, "only \"relu\" is");
    if (!is_hyper) return ReadKeys(block, "hypermoe.", AdapterKeys());
    hyper().set_execution(HyperConfig::auto_);
    if (block.value("condition", json()) == "weights") {
      return NotSupported("hypermoe.condition", block["condition"],
                          "\"unselected\", \"selected\" and \"hidden\" are");
    }
    RETURN_IF_ERROR(ReadKeys(block, "hypermoe.", HyperKeys()));
    RETURN_IF_ERROR(CheckWeighting(block));
    return ReadBaked(block);
  }

  absl::Status CheckWeighting(const json& block) {
    if (hyper().z() == HyperConfig::binary || hyper().condition() == HyperConfig::unselected)
      return absl::OkStatus();
    if (hyper().condition() == HyperConfig::selected)
      return Refuse("hypermoe.z", block["z"],
                    "\"binary\" where 'hypermoe.condition' is \"selected\"");
    // Condition hidden counts no experts.
    hyper().set_z(HyperConfig::binary);
    return absl::OkStatus();
  }

  absl::Status ReadBaked(const json& block) {
    const json* const places[] = {&top_, &block};
    for (const json* place : places) {
      const json value = place->value("baked", json(false));
      if (!value.is_boolean()) return Refuse("baked", value, "true or false");
      hyper().set_baked(hyper().baked() || value.get<bool>());
    }
    if (!hyper().baked()) return absl::OkStatus();
    if (model().top_k() == 1 && SharedBySelection(hyper())) return absl::OkStatus();
    return Refuse("baked", json(true),
                  "a model with 'moe.top_k' 1, 'hypermoe.condition' \"unselected\" or \"selected\" "
                  "and 'hypermoe.z' \"binary\": others have no HyperExpert for each expert");
  }

  const std::string& path_;
  const json& top_;
  RunConfig result_;
};

}  // namespace

absl::StatusOr<RunConfig> ReadFolderConfig(const std::string& path, const std::string& text) {
  ASSIGN_OR_RETURN(const json top, ParseStrictJson(path, text));
  return ConfigReader(path, top).Read();
}

}  // namespace hypermoe
