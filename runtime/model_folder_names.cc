#include "runtime/model_folder_names.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "model/config_values.h"

namespace hypermoe {
namespace {

using Use = FolderTensor::Use;

constexpr char kHead[] = "lm_head.weight";
constexpr char kShared[] = "shared.weight";
// A dense feed-forward network in t5, and in switch_transformers.
constexpr char kT5Network[] = ".DenseReluDense.", kNetwork[] = ".mlp.";
// T5's first files have one that nothing uses.
constexpr char kUnusedBias[] =
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

// h.{i}.attn.bias and h.{i}.attn.masked_bias.
bool IsAttentionMask(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "h.")) return false;
  const size_t digits =
      std::find_if_not(name.begin(), name.end(), absl::ascii_isdigit) - name.begin();
  name.remove_prefix(digits);
  return digits > 0 && (name == ".attn.bias" || name == ".attn.masked_bias");
}

bool IsUntiedEmbedding(const std::string& name) {
  const std::vector<std::string> names = UntiedEmbeddings();
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

FolderTensor TensorOfFolder(const ModelConfig& model, const std::string& name_in_file) {
  if (!HasEncoder(model)) {
    const std::string name(absl::StripPrefix(name_in_file, "transformer."));
    if (IsAttentionMask(name)) return {Use::kNone, ""};
    return name == kHead ? FolderTensor{Use::kCopy, EmbeddingName(model)}
                         : FolderTensor{Use::kParameter, name};
  }
  const bool embedding =
      name_in_file == kShared || name_in_file == kHead || IsUntiedEmbedding(name_in_file);
  if (embedding && model.tie_embeddings())
    return {name_in_file == kShared ? Use::kParameter : Use::kCopy, kShared};
  if (name_in_file == kShared) return {Use::kOtherwise, ""};
  if (model.kind() != ModelConfig::dense) return {Use::kParameter, name_in_file};
  if (name_in_file == kUnusedBias) return {Use::kNone, ""};
  return {Use::kParameter, absl::StrReplaceAll(name_in_file, {{kT5Network, kNetwork}})};
}

std::vector<std::string> NamesInFolder(const ModelConfig& model, const std::string& name) {
  if (!HasEncoder(model)) return {name};
  if (!model.tie_embeddings() && name == EmbeddingName(model)) return {kShared, name};
  if (model.kind() != ModelConfig::dense) return {name};
  return {absl::StrReplaceAll(name, {{kNetwork, kT5Network}})};
}

std::string EmbeddingName(const ModelConfig& model) {
  if (!HasEncoder(model)) return "wte.weight";
  return model.tie_embeddings() ? kShared : UntiedEmbeddings()[0];
}

std::vector<std::string> UntiedEmbeddings() {
  return {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"};
}

}  // namespace hypermoe
