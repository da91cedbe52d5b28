#include "runtime/model_folder_config_switch.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/config_values.h"
#include "runtime/file_util.h"
#include "runtime/model_folder_config_reader.h"
#include "runtime/model_folder_keys.h"

namespace hypermoe {
namespace {

using nlohmann::json;

// Relative positions have no end, so the folder says none: the length of T5's training rows.
constexpr int kTrainingPositions = 512;

class EncoderDecoderReader : public FolderConfigReader {
 public:
  using FolderConfigReader::FolderConfigReader;

  absl::StatusOr<RunConfig> ReadSwitch() {
    SetFamily();
    RETURN_IF_ERROR(CheckSwitches({{"is_encoder_decoder", true, true}}));
    RETURN_IF_ERROR(ReadSelectedExperts());
    RETURN_IF_ERROR(ReadKeys(top(), "", SwitchKeys()));
    RETURN_IF_ERROR(ReadCommon());
    RETURN_IF_ERROR(ReadCapacity());
    RETURN_IF_ERROR(ReadSparseStep("encoder", model().num_layers()));
    RETURN_IF_ERROR(ReadSparseStep("decoder", model().num_decoder_layers()));
    RETURN_IF_ERROR(ReadHypermoe());
    if (!SparseLayers(model()).empty()) return result();
    return NotSupported("encoder_sparse_step", model().encoder_sparse_step(),
                        "with it and 'decoder_sparse_step' no block is sparse, and dense models "
                        "are of model_type \"t5\"");
  }

  absl::StatusOr<RunConfig> ReadT5() {
    SetFamily();
    model().set_kind(ModelConfig::dense);
    RETURN_IF_ERROR(
        CheckSwitches({{"is_encoder_decoder", true, true}, {"tie_word_embeddings", true, true}}));
    RETURN_IF_ERROR(ReadFeedForward());
    RETURN_IF_ERROR(ReadKeys(top(), "", T5Keys()));
    RETURN_IF_ERROR(ReadCommon());
    return result();
  }

 private:
  void SetFamily() {
    model().set_family(ModelConfig::switch_transformers);
    model().set_sequence_length(kTrainingPositions);
    model().set_activation(ModelConfig::relu);
    model().set_router_jitter(0.01);
    model().set_router_z_coefficient(0.001);
    BalanceLossConfig& balance = *model().mutable_balance_loss();
    balance.set_coefficient(0.001);
    balance.set_scope(BalanceLossConfig::stack_row);
    balance.set_dropped_count_as_first(true);
  }

  // No row is longer than what is taken for more.
  absl::Status ReadCapacity() {
    constexpr int64_t kLongestRow = 65536;
    json capacity = top().value("expert_capacity", json(64));
    if (capacity.is_number_integer() && capacity > kLongestRow) capacity = kLongestRow;
    CapacityConfig& evaluation = *model().mutable_evaluation_capacity();
    evaluation.set_mode(CapacityConfig::fixed_per_row);
    RETURN_IF_ERROR(Put("expert_capacity", capacity, "model.evaluation_capacity.tokens_per_row"));
    *model().mutable_training_capacity() = evaluation;
    return absl::OkStatus();
  }

  // The library takes one expert a token whatever this key says.
  absl::Status ReadSelectedExperts() const {
    const json value = top().value("num_selected_experts", json(1));
    if (value == 1) return absl::OkStatus();
    if (!value.is_number_integer()) return Refuse("num_selected_experts", value, "the integer 1");
    return NotSupported("num_selected_experts", value, "models of this type have 1");
  }

  // What the library makes of feed_forward_proj, where dense_act_fn and is_gated_act do not say it.
  absl::Status ReadFeedForward() {
    const json project = top().value("feed_forward_proj", json("relu"));
    if (!project.is_string()) return Refuse("feed_forward_proj", project, "a text");
    const auto text = project.get<std::string>();
    const json gated = top().value("is_gated_act", json(absl::StartsWith(text, "gated-")));
    if (!gated.is_boolean()) return Refuse("is_gated_act", gated, "true or false");
    if (gated.get<bool>()) {
      return NotSupported(top().contains("is_gated_act") ? "is_gated_act" : "feed_forward_proj",
                          top().contains("is_gated_act") ? gated : project,
                          "only feed-forward networks of two matrices are");
    }
    if (top().contains("dense_act_fn")) return absl::OkStatus();  // among the keys
    return Put("feed_forward_proj", project, "model.activation");
  }

  // What both types have.
  absl::Status ReadCommon() {
    if (model().head_size() == 0) return Refuse("d_kv", 0, "an integer above 0");
    RETURN_IF_ERROR(CheckRelativePositions());
    const json decoder = top().value("num_decoder_layers", json(DefaultDecoderLayers()));
    RETURN_IF_ERROR(Put("num_decoder_layers",
                        decoder.is_null() ? json(model().num_layers()) : decoder,
                        "model.num_decoder_layers"));
    if (top().value("decoder_start_token_id", json()).is_null()) {
      return DataError(absl::StrCat(
          Printable(path()),
          ": 'decoder_start_token_id' is missing, the id that every target begins with: Hugging "
          "Face has no default for it; most models of this type have that of 'pad_token_id', ",
          model().pad_id()));
    }
    RETURN_IF_ERROR(
        Put("decoder_start_token_id", top()["decoder_start_token_id"], "model.decoder_start_id"));
    for (const char* key : {"pad_token_id", "eos_token_id", "decoder_start_token_id"}) {
      const json id = top().value(key, json(0));
      if (id < model().vocab_size()) continue;
      return Refuse(key, id, absl::StrCat("an id below 'vocab_size' (", model().vocab_size(), ")"));
    }
    return absl::OkStatus();
  }

  // That every bucket has a distance, as kernels/relative_attention.h asks for.
  absl::Status CheckRelativePositions() {
    const int buckets = model().relative_buckets(), distance = model().relative_max_distance();
    if (buckets % 2 != 0) {
      return NotSupported("relative_attention_num_buckets", buckets,
                          "even numbers are, half of them for each direction of the encoder");
    }
    if (distance > buckets / 2) return absl::OkStatus();
    return Refuse("relative_attention_max_distance", distance,
                  absl::StrCat("more than half of 'relative_attention_num_buckets' (", buckets,
                               "), so many of which have one distance each"));
  }

  // 12 in Switch; T5's class has none, and takes num_layers then.
  json DefaultDecoderLayers() const { return top()["model_type"] == "t5" ? json() : json(12); }

  // A step that is written comes before the number of sparse blocks, from which the library
  // otherwise derives it; 0 of them is the step num_layers there, which leaves one.
  absl::Status ReadSparseStep(const std::string& stack, int64_t blocks) {
    const std::string step_key = stack + "_sparse_step", field = "model." + step_key;
    const std::string count_key = absl::StrCat("num_sparse_", stack, "_layers");
    if (top().contains(step_key)) return Put(step_key, top()[step_key], field);
    const json count = top().value(count_key, json(3));
    if (!count.is_number_integer() || count < 0 || count > 256)
      return Refuse(count_key, count, "an integer from 0 to 256");
    return Put(step_key, count == 0 ? blocks : blocks / count.get<int64_t>(), field);
  }
};

}  // namespace

absl::StatusOr<RunConfig> ReadSwitchConfig(const std::string& path, const json& top) {
  return EncoderDecoderReader(path, top).ReadSwitch();
}

absl::StatusOr<RunConfig> ReadT5Config(const std::string& path, const json& top) {
  return EncoderDecoderReader(path, top).ReadT5();
}

}  // namespace hypermoe
