#include "runtime/model_folder_keys.h"

#include <set>

#include "absl/strings/str_split.h"

namespace hypermoe {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;

namespace {

// A dense model has no block that would say its kind.
std::vector<const EnumValueDescriptor*> ValuesInFolders(const FieldDescriptor& field) {
  std::vector<const EnumValueDescriptor*> values;
  const EnumValueDescriptor* const dense =
      ModelConfig::Kind_descriptor()->FindValueByNumber(ModelConfig::dense);
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    if (field.enum_type()->value(i) != dense) values.push_back(field.enum_type()->value(i));
  }
  return values;
}

}  // namespace

const std::vector<FolderKey>& Gpt2Keys() {
  static const auto* const keys = new std::vector<FolderKey>{
      {"vocab_size", "model.vocab_size", 50257},
      {"n_positions", "model.sequence_length", 1024},
      {"n_embd", "model.hidden_size", 768},
      {"n_layer", "model.num_layers", 12},
      {"n_head", "model.num_heads", 12},
      {"activation_function", "model.activation", {}},
      {"resid_pdrop", "model.dropout", 0.1},
      {"layer_norm_epsilon", "model.layer_norm_epsilon", {}},
      {"initializer_range", "model.init_std", {}},
  };
  return *keys;
}

namespace {

// What switch_transformers and t5 have in common, with the defaults in which they differ.
std::vector<FolderKey> EncoderDecoderKeys(double width, double layers, double heads) {
  return {
      {"vocab_size", "model.vocab_size", 32128},
      {"d_model", "model.hidden_size", width},
      {"d_kv", "model.head_size", 64},
      {"d_ff", "model.ffn_size", 2048},
      {"num_layers", "model.num_layers", layers},
      {"num_heads", "model.num_heads", heads},
      {"relative_attention_num_buckets", "model.relative_buckets", 32},
      {"relative_attention_max_distance", "model.relative_max_distance", 128},
      {"dropout_rate", "model.dropout", 0.1},
      {"layer_norm_epsilon", "model.layer_norm_epsilon", 1e-6},
      {"initializer_factor", "model.initializer_factor", 1},
      {"dense_act_fn", "model.activation", {}},
      {"tie_word_embeddings", "model.tie_embeddings", {}},
      {"pad_token_id", "model.pad_id", 0},
      {"eos_token_id", "model.end_id", 1},
  };
}

}  // namespace

const std::vector<FolderKey>& SwitchKeys() {
  static const auto* const keys = [] {
    auto* const all = new std::vector<FolderKey>(EncoderDecoderKeys(768, 12, 12));
    all->insert(all->end(), {{"num_experts", "model.num_experts", 8},
                             {"router_bias", "model.router_bias", {}},
                             {"router_jitter_noise", "model.router_jitter", 0.01},
                             {"router_z_loss_coef", "model.router_z_coefficient", 0.001},
                             {"router_aux_loss_coef", "model.balance_loss.coefficient", 0.001}});
    return all;
  }();
  return *keys;
}

const std::vector<FolderKey>& T5Keys() {
  static const auto* const keys = new std::vector<FolderKey>(EncoderDecoderKeys(512, 6, 8));
  return *keys;
}

const std::vector<FolderKey>& MoeKeys() {
  static const auto* const keys = new std::vector<FolderKey>{
      {"num_experts", "model.num_experts", {}},
      {"top_k", "model.top_k", {}},
      {"router", "model.router", {}},
      {"renormalize", "model.renormalize", {}},
  };
  return *keys;
}

const std::vector<FolderKey>& LossKeys() {
  static const auto* const keys = new std::vector<FolderKey>{
      {"switch_balance", "model.balance_loss.coefficient", 0},
      {"importance_cv2", "model.importance_coefficient", {}},
      {"load_cv2", "model.load_coefficient", {}},
      {"router_z", "model.router_z_coefficient", {}},
  };
  return *keys;
}

const std::vector<FolderKey>& HyperKeys() {
  static const auto* const keys = new std::vector<FolderKey>{
      {"condition", "hyper.condition", {}},
      {"agg", "hyper.agg", {}},
      {"emb_scope", "hyper.emb_scope", {}},
      {"sel_mlp_scope", "hyper.sel_mlp_scope", {}},
      {"share", "hyper.share", {}},
      {"lin_bias", "hyper.lin_bias", {}},
      {"gen_bias", "hyper.gen_bias", {}},
      {"k_act", "hyper.k_act", {}},
      {"k_norm", "hyper.k_norm", {}},
      {"scale", "hyper.scale", {}},
      {"on_dropped", "hyper.on_dropped", {}},
      {"z", "hyper.z", {}},
      {"expert_embedding_dim", "hyper.expert_embedding_dim", {}},
      {"mlp_hidden_dim", "hyper.mlp_hidden_dim", {}},
      {"selection_embedding_dim", "hyper.selection_embedding_dim", {}},
      {"layer_embedding_dim", "hyper.layer_embedding_dim", {}},
      {"hidden_dim", "hyper.hidden_dim", {}},
      {"bottleneck_dim", "hyper.bottleneck_dim", {}},
  };
  return *keys;
}

const std::vector<FolderKey>& AdapterKeys() {
  static const auto* const keys =
      new std::vector<FolderKey>{{"bottleneck_dim", "hyper.bottleneck_dim", {}}};
  return *keys;
}

const std::vector<FolderKey>& WeightEncoderKeys() {
  static const auto* const keys =
      new std::vector<FolderKey>{{"conv_act", "hyper.conv_act", {}},
                                 {"conv_grad_to_experts", "hyper.conv_grad_to_experts", {}}};
  return *keys;
}

FieldPlace FindPlace(const std::string& path, RunConfig* config) {
  google::protobuf::Message* section = config;
  const FieldDescriptor* field = nullptr;
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  for (const std::string& name : names) {
    if (field != nullptr) section = section->GetReflection()->MutableMessage(section, field);
    field = section->GetDescriptor()->FindFieldByName(name);
  }
  return {section, field};
}

std::string FolderWord(const EnumValueDescriptor& value) {
  // Enums of one message share their values' names in C++, so not both can be "none".
  static const auto* const none = new std::set<std::string>{"no_norm", "unscaled"};
  return none->contains(value.name()) ? "none" : value.name();
}

std::vector<std::string> FolderWords(const FieldDescriptor& field) {
  std::vector<std::string> words;
  for (const EnumValueDescriptor* value : ValuesInFolders(field))
    words.push_back(FolderWord(*value));
  return words;
}

const EnumValueDescriptor* FindFolderWord(const FieldDescriptor& field, const std::string& word) {
  for (const EnumValueDescriptor* value : ValuesInFolders(field)) {
    if (FolderWord(*value) == word) return value;
  }
  return nullptr;
}

}  // namespace hypermoe
