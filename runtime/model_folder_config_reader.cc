#include "runtime/model_folder_config_reader.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/weight_encoder.h"
#include "runtime/config_fields.h"
#include "runtime/file_util.h"
#include "runtime/hyper_execution.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;
using nlohmann::json;

// Keys that change what a model computes where they are there and neither null nor empty.
constexpr const char* kUnsupportedKeys[] = {"quantization_config", "pruned_heads"};

}  // namespace

FolderConfigReader::FolderConfigReader(const std::string& path, const json& top)
    : path_(path), top_(top) {
  FillDefaults(&result_);
}

std::string FolderConfigReader::Is(const std::string& key, const json& value) const {
  return absl::StrCat(Printable(path_), ": '", key, "' is ", Printable(value.dump()));
}

absl::Status FolderConfigReader::Refuse(const std::string& key, const json& value,
                                        const std::string& expected) const {
  return DataError(absl::StrCat(Is(key, value), ", expected ", expected));
}

absl::Status FolderConfigReader::NotSupported(const std::string& key, const json& value,
                                              const std::string& supported) const {
  return ConfigError(
      absl::StrCat(Is(key, value), ", which is not supported by this version: ", supported));
}

absl::Status FolderConfigReader::Put(const std::string& key, const json& value,
                                     const std::string& field_path) {
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

absl::Status FolderConfigReader::ReadKeys(const json& block, const std::string& prefix,
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

absl::StatusOr<json> FolderConfigReader::Block(const json& parent, const std::string& prefix,
                                               const char* key) const {
  json block = parent.value(key, json::object());
  if (!block.is_object()) return Refuse(prefix + key, block, "an object");
  return block;
}

absl::Status FolderConfigReader::ReadHypermoe() {
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
  RETURN_IF_ERROR(ReadKeys(block, "hypermoe.", HyperKeys()));
  RETURN_IF_ERROR(ReadWeightEncoder(block));
  RETURN_IF_ERROR(CheckWeighting(block));
  return ReadBaked(block);
}

absl::Status FolderConfigReader::ReadWeightEncoder(const json& block) {
  if (hyper().condition() != HyperConfig::weights) return absl::OkStatus();
  RETURN_IF_ERROR(ReadKeys(block, "hypermoe.", WeightEncoderKeys()));
  if (WeightEncoder::Reads(model().ffn_size(), model().hidden_size()) &&
      hyper().expert_embedding_dim() == WeightEncoder::kWidth) {
    return absl::OkStatus();
  }
  return Refuse(
      "hypermoe.condition", block["condition"],
      absl::StrCat("another one, or a model of width ", WeightEncoder::kColumns, " to ",
                   2 * WeightEncoder::kColumns - 1, ", inner width ", WeightEncoder::kRows, " to ",
                   2 * WeightEncoder::kRows - 1, " and 'hypermoe.expert_embedding_dim' ",
                   WeightEncoder::kWidth, "; they are ", model().hidden_size(), ", ",
                   model().ffn_size(), " and ", hyper().expert_embedding_dim()));
}

absl::Status FolderConfigReader::CheckWeighting(const json& block) {
  if (hyper().z() == HyperConfig::binary || hyper().condition() == HyperConfig::unselected ||
      hyper().condition() == HyperConfig::weights)
    return absl::OkStatus();
  if (hyper().condition() == HyperConfig::selected)
    return Refuse("hypermoe.z", block["z"],
                  "\"binary\" where 'hypermoe.condition' is \"selected\"");
  // Condition hidden counts no experts.
  hyper().set_z(HyperConfig::binary);
  return absl::OkStatus();
}

absl::Status FolderConfigReader::ReadBaked(const json& block) {
  const json* const places[] = {&top_, &block};
  for (const json* place : places) {
    const json value = place->value("baked", json(false));
    if (!value.is_boolean()) return Refuse("baked", value, "true or false");
    hyper().set_baked(hyper().baked() || value.get<bool>());
  }
  if (!hyper().baked()) return absl::OkStatus();
  if (model().top_k() == 1 && SharedBySelection(hyper())) return absl::OkStatus();
  return Refuse(
      "baked", json(true),
      "a model with 'moe.top_k' 1, 'hypermoe.condition' \"unselected\", \"selected\" or "
      "\"weights\" and 'hypermoe.z' \"binary\": others have no HyperExpert for each expert");
}

absl::Status FolderConfigReader::CheckSwitches(const std::vector<FixedSwitch>& switches) const {
  for (const FixedSwitch& fixed : switches) {
    const json value = top_.value(fixed.key, json(fixed.if_absent));
    if (!value.is_boolean()) return Refuse(fixed.key, value, "true or false");
    if (value == fixed.supported) continue;
    return NotSupported(fixed.key, value,
                        absl::StrCat("only ", fixed.supported ? "true" : "false", " is"));
  }
  for (const char* key : kUnsupportedKeys) {
    const json value = top_.value(key, json());
    if (!value.empty()) return NotSupported(key, value, "only models without it are");
  }
  return absl::OkStatus();
}

}  // namespace hypermoe
