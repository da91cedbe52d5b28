#include "runtime/model_folder_unsaid.h"

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/config_fields.h"
#include "runtime/model_folder_config.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// A limit that no row reaches is none.
void CompleteCapacity(const ModelConfig& model, CapacityConfig* capacity) {
  constexpr int kLongestRow = 65536;
  const bool unreached = capacity->mode() == CapacityConfig::fixed_per_row &&
                         capacity->tokens_per_row() >= kLongestRow;
  if (model.kind() == ModelConfig::dense || capacity->mode() == CapacityConfig::none || unreached)
    *capacity = CapacityConfig();
}

void ClearRouting(ModelConfig* model) {
  for (const char* name : {"num_experts", "top_k", "router_jitter", "router_z_coefficient",
                           "balance_loss", "importance_coefficient", "load_coefficient"}) {
    model->GetReflection()->ClearField(model, model->GetDescriptor()->FindFieldByName(name));
  }
}

// The sections model and hyper with the values that follow from others written out, and those
// cleared that count nowhere.
RunConfig Complete(const RunConfig& config) {
  RunConfig complete;
  ModelConfig& model = *complete.mutable_model() = config.model();
  HyperConfig& hyper = *complete.mutable_hyper() = config.hyper();
  const ModelConfig& given = config.model();
  model.set_head_size(static_cast<int>(HeadSize(given)));
  model.set_embedding_dropout(EmbeddingDropoutOf(given));
  model.set_attention_dropout(AttentionDropoutOf(given));
  model.set_expert_dropout(ExpertInnerDropoutOf(given));
  model.clear_sparse_layers();
  for (const int64_t layer : SparseLayers(given)) model.add_sparse_layers(static_cast<int>(layer));
  if (HasEncoder(given)) model.clear_sequence_length();
  CompleteCapacity(given, model.mutable_training_capacity());
  CompleteCapacity(given, model.mutable_evaluation_capacity());
  if (given.kind() == ModelConfig::dense) ClearRouting(&model);
  hyper.clear_execution();
  hyper.clear_preset();
  hyper.clear_init();
  if (given.kind() != ModelConfig::hyper) {
    hyper = HyperConfig();
    if (given.kind() == ModelConfig::adapter)
      hyper.set_bottleneck_dim(config.hyper().bottleneck_dim());
  }
  FillDefaults(&complete);
  return complete;
}

void AddDifferences(const Message& model, const Message& read, const std::string& path,
                    std::vector<std::string>* differences) {
  for (int i = 0; i < model.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *model.GetDescriptor()->field(i);
    const std::string field_path = JoinPath(path, field.name());
    if (field.message_type() != nullptr && !field.is_repeated()) {
      AddDifferences(model.GetReflection()->GetMessage(model, &field),
                     read.GetReflection()->GetMessage(read, &field), field_path, differences);
      continue;
    }
    const std::string value = ValueText(model, field), as_read = ValueText(read, field);
    if (value != as_read)
      differences->push_back(absl::StrCat(field_path, " (", value, ", read as ", as_read, ")"));
  }
}

}  // namespace

std::vector<std::string> UnsaidOptions(const RunConfig& model, const std::string& text) {
  std::vector<std::string> differences;
  const absl::StatusOr<RunConfig> read = ReadFolderConfig("config.json", text);
  if (!read.ok()) return differences;
  const RunConfig before = Complete(model), after = Complete(*read);
  AddDifferences(before.model(), after.model(), "model", &differences);
  AddDifferences(before.hyper(), after.hyper(), "hyper", &differences);
  return differences;
}

}  // namespace hypermoe
