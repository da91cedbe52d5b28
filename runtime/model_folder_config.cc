#include "runtime/model_folder_config.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/model_folder_config_reader.h"
#include "runtime/model_folder_config_switch.h"
#include "runtime/model_folder_keys.h"
#include "runtime/strict_json.h"

namespace hypermoe {
namespace {

using nlohmann::json;

class Gpt2ConfigReader : public FolderConfigReader {
 public:
  using FolderConfigReader::FolderConfigReader;

  absl::StatusOr<RunConfig> Read() {
    const bool sparse = top()["model_type"] == "hypermoe_gpt2";
    if (!sparse) RETURN_IF_ERROR(CheckDense());
    RETURN_IF_ERROR(CheckSwitches({{"scale_attn_weights", true, true},
                                   {"scale_attn_by_inverse_layer_idx", false, false},
                                   {"tie_word_embeddings", true, true},
                                   {"add_cross_attention", false, false},
                                   {"is_encoder_decoder", false, false}}));
    RETURN_IF_ERROR(ReadKeys(top(), "", Gpt2Keys()));
    RETURN_IF_ERROR(ReadWidths());
    model().set_kind(ModelConfig::dense);
    if (!sparse) return result();
    RETURN_IF_ERROR(ReadMoe());
    RETURN_IF_ERROR(ReadHypermoe());
    return result();
  }

 private:
  absl::Status CheckDense() const {
    for (const char* block : {"moe", "hypermoe"}) {
      if (!top().contains(block)) continue;
      return DataError(absl::StrCat(Printable(path()),
                                    ": 'model_type' is \"gpt2\", which is dense, but there is a "
                                    "block '",
                                    block, "': a sparse model's is \"hypermoe_gpt2\""));
    }
    return absl::OkStatus();
  }

  // What follows from more than one key.
  absl::Status ReadWidths() {
    const json inner = top().value("n_inner", json());
    if (!inner.is_null()) {
      RETURN_IF_ERROR(Put("n_inner", inner, "model.ffn_size"));
    } else {
      // At most 4 * 65536, which the field's range allows.
      model().set_ffn_size(4 * model().hidden_size());
    }
    // -1 in embedding_dropout and attention_dropout means: as dropout.
    const double residual = model().dropout();
    for (const char* key : {"embd_pdrop", "attn_pdrop"}) {
      RETURN_IF_ERROR(Put(key, top().value(key, json(0.1)), "model.dropout"));
      const double value = model().dropout() == residual ? -1 : model().dropout();
      if (key == std::string("embd_pdrop")) {
        model().set_embedding_dropout(value);
      } else {
        model().set_attention_dropout(value);
      }
    }
    model().set_dropout(residual);
    if (model().hidden_size() % model().num_heads() == 0) return absl::OkStatus();
    return DataError(absl::StrCat(Printable(path()), ": 'n_embd' (", model().hidden_size(),
                                  ") is not a multiple of 'n_head' (", model().num_heads(), ")"));
  }

  absl::Status ReadMoe() {
    if (!top().contains("moe")) {
      return DataError(absl::StrCat(Printable(path()),
                                    ": 'moe' is missing, the block that describes "
                                    "the experts of a hypermoe_gpt2"));
    }
    ASSIGN_OR_RETURN(const json moe, Block(top(), "", "moe"));
    if (!moe.contains("num_experts")) {
      return DataError(absl::StrCat(Printable(path()), ": 'moe.num_experts' is missing"));
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
};

// What tells the family.
class ModelTypeReader : public FolderConfigReader {
 public:
  using FolderConfigReader::FolderConfigReader;

  absl::StatusOr<std::string> Read() const {
    const json type = top().value("model_type", json());
    if (!type.is_string()) {
      return Refuse("model_type", type, absl::StrCat("a text, of which ", kKnown, " are known"));
    }
    for (const char* known : {"gpt2", "hypermoe_gpt2", "switch_transformers", "t5"}) {
      if (type == known) return type.get<std::string>();
    }
    return NotSupported("model_type", type, absl::StrCat(kKnown, " are"));
  }

 private:
  static constexpr char kKnown[] =
      "\"gpt2\", \"hypermoe_gpt2\", \"switch_transformers\" and \"t5\"";
};

}  // namespace

absl::StatusOr<RunConfig> ReadFolderConfig(const std::string& path, const std::string& text) {
  ASSIGN_OR_RETURN(const json top, ParseStrictJson(path, text));
  ASSIGN_OR_RETURN(const std::string type, ModelTypeReader(path, top).Read());
  if (type == "switch_transformers") return ReadSwitchConfig(path, top);
  if (type == "t5") return ReadT5Config(path, top);
  return Gpt2ConfigReader(path, top).Read();
}

}  // namespace hypermoe
