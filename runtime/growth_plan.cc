#include "runtime/growth_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/config_values.h"
#include "runtime/config_fields.h"

namespace hypermoe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The first of `names` (none: of all fields but `except`) that differs, as an error.
absl::Status CheckEqual(const Message& from, const Message& to, const std::string& section,
                        const std::vector<std::string>& names,
                        const std::vector<std::string>& except = {}) {
  const auto contains = [](const std::vector<std::string>& list, const std::string& name) {
    return std::find(list.begin(), list.end(), name) != list.end();
  };
  for (int i = 0; i < from.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *from.GetDescriptor()->field(i);
    if (names.empty() ? contains(except, field.name()) : !contains(names, field.name())) continue;
    const std::string before = ValueText(from, field), after = ValueText(to, field);
    if (before == after) continue;
    return ConfigError(absl::StrCat(section, ".", field.name(), " is ", before,
                                    " in the model to start from and ", after,
                                    " here: its parameters fit only the same value"));
  }
  return absl::OkStatus();
}

bool IsSparse(const ModelConfig& model) { return model.kind() != ModelConfig::dense; }

std::string KindName(const ModelConfig& model) { return ModelConfig::Kind_Name(model.kind()); }

absl::Status CheckKinds(const ModelConfig& from, const ModelConfig& to) {
  const bool same = from.kind() == to.kind();
  if (same || from.kind() == ModelConfig::dense ||
      (from.kind() == ModelConfig::moe && IsSparse(to)))
    return absl::OkStatus();
  return ConfigError(absl::StrCat("model.kind is ", KindName(from),
                                  " in the model to start from and ", KindName(to),
                                  " here: a dense model can become any kind, a moe any sparse one, "
                                  "every other kind stays what it is"));
}

absl::Status CheckSparsity(const ModelConfig& from, const ModelConfig& to) {
  if (!IsSparse(from)) return absl::OkStatus();
  if (SparseLayers(from) != SparseLayers(to)) {
    return ConfigError(absl::StrCat(
        HasEncoder(to) ? "model.encoder_sparse_step or model.decoder_sparse_step"
                       : "model.sparse_layers",
        " differs from that of the model to start from, which is sparse already: give the same "
        "blocks"));
  }
  // One that there was not starts at zero.
  if (from.router_bias()) RETURN_IF_ERROR(CheckEqual(from, to, "model", {"router_bias"}));
  const int experts = from.num_experts();
  if (to.num_experts() % experts == 0) return absl::OkStatus();
  return ConfigError(absl::StrCat(to.num_experts(), " experts are no multiple of the ", experts,
                                  " of the model to start from: give ", experts, ", ", 2 * experts,
                                  ", ", 3 * experts, " or so on"));
}

absl::Status CheckFits(const RunConfig& from, const RunConfig& to) {
  RETURN_IF_ERROR(CheckKinds(from.model(), to.model()));
  RETURN_IF_ERROR(CheckEqual(from.model(), to.model(), "model",
                             {"family", "vocab_size", "num_layers", "hidden_size", "num_heads",
                              "ffn_size", "layer_norm_epsilon", "activation"}));
  if (HasEncoder(to.model())) {
    RETURN_IF_ERROR(
        CheckEqual(from.model(), to.model(), "model",
                   {"num_decoder_layers", "head_size", "relative_buckets", "relative_max_distance",
                    "tie_embeddings", "pad_id", "decoder_start_id"}));
  }
  RETURN_IF_ERROR(CheckSparsity(from.model(), to.model()));
  // Relative positions go on for ever.
  if (!HasEncoder(to.model()) && to.model().sequence_length() > from.model().sequence_length()) {
    return ConfigError(absl::StrCat("model.sequence_length is ", to.model().sequence_length(),
                                    ", but the model to start from knows ",
                                    from.model().sequence_length(), " positions: lower it"));
  }
  if (IsSparse(to.model()) && to.model().top_k() > to.model().num_experts()) {
    return ConfigError(absl::StrCat("model.top_k (", to.model().top_k(),
                                    ") must be at most model.num_experts (",
                                    to.model().num_experts(), "): lower it"));
  }
  if (to.hyper().baked())
    return ConfigError("hyper.baked is set: only a finished model is baked, by `hypermoe export`");
  if (from.model().kind() != ModelConfig::hyper) return absl::OkStatus();
  return CheckEqual(from.hyper(), to.hyper(), "hyper", {},
                    {"execution", "init", "preset", "conv_grad_to_experts"});
}

// Of hyper.condition unselected, z binary; see growth_plan.h.
EmbeddingMix UnselectedMix(bool mean, bool top_1, double experts, double m, double q) {
  if (!top_1 || q >= m) return {mean ? 1 : 1 / q, 0};
  // One expert that is selected leaves no other; its clones must add up to the zero of that.
  if (mean && experts == 1) return {0, 0};
  if (mean) return {(m * experts - q) / (q * (experts - 1)), (q - m) / (q * (experts - 1))};
  return {1 / q, (q - m) / (q * (m * experts - q))};
}

EmbeddingMix MixOf(const HyperConfig& hyper, bool top_1, double experts, double m, double q) {
  const bool mean = hyper.agg() == HyperConfig::mean;
  if (hyper.condition() == HyperConfig::selected) return {mean ? 1 : 1 / q, 0};
  if (hyper.z() == HyperConfig::one_minus_prob) return UnselectedMix(mean, true, experts, m, 1);
  return UnselectedMix(mean, top_1, experts, m, q);
}

// Whether an expert of the target takes as many choices of a group as one of the source.
bool SameLimits(const CapacityConfig& from, const CapacityConfig& to, double m, double q) {
  if (from.mode() != to.mode()) return false;
  if (from.mode() == CapacityConfig::none) return true;
  if (from.mode() == CapacityConfig::fixed_per_row)
    return from.tokens_per_row() == to.tokens_per_row();
  return from.group_rows() == to.group_rows() &&
         std::abs(to.factor() - from.factor() * m / q) <= 1e-12 * to.factor();
}

void AddChanges(const RunConfig& from, const RunConfig& to, double q, GrowthPlan* plan) {
  const ModelConfig &before = from.model(), &after = to.model();
  const auto m = static_cast<double>(plan->clones);
  const auto add = [plan](auto&&... parts) { plan->changes.push_back(absl::StrCat(parts...)); };
  if (IsSparse(before)) {
    if (!(before.top_k() == 1 ? q <= m : q == m)) {
      add("model.top_k is ", after.top_k(), ", but what was taken with top_k ", before.top_k(),
          " is taken, and nothing else, only with ", before.top_k() == 1 ? "1 to " : "",
          before.top_k() * plan->clones);
    }
    if (before.renormalize() != after.renormalize())
      add("model.renormalize is ", after.renormalize() ? "true" : "false", ", which it was not");
  }
  CapacityConfig unlimited;
  if (!SameLimits(IsSparse(before) ? before.evaluation_capacity() : unlimited,
                  after.evaluation_capacity(), m, q)) {
    add("model.evaluation_capacity lets an expert take another number of tokens");
  }
  if (after.kind() == ModelConfig::hyper && !plan->keeps_hypernetwork &&
      to.hyper().init() != HyperConfig::zero_u) {
    add("hyper.init is ", HyperConfig::Initial_Name(to.hyper().init()),
        ", with which new HyperExperts are not zero (zero_u: they are)");
  }
  if (plan->keeps_hypernetwork && to.hyper().condition() == HyperConfig::weights &&
      !plan->EncodesWhatItDid()) {
    add("hyper.condition is weights, and embeddings of the new experts, computed from their "
        "matrices, do not add up to those of the old ones unless model.top_k is ",
        before.top_k() * plan->clones);
  }
}

}  // namespace

absl::StatusOr<GrowthPlan> PlanGrowth(const RunConfig& from, const RunConfig& to) {
  RETURN_IF_ERROR(CheckFits(from, to));
  GrowthPlan plan;
  plan.from = from.model();
  plan.to = to.model();
  plan.keeps_hypernetwork = from.model().kind() == ModelConfig::hyper;
  if (!IsSparse(to.model())) return plan;
  const bool sparse = IsSparse(from.model());
  plan.experts = sparse ? from.model().num_experts() : 1;
  plan.clones = to.model().num_experts() / plan.experts;
  const auto m = static_cast<double>(plan.clones);
  const double q = static_cast<double>(to.model().top_k()) / (sparse ? from.model().top_k() : 1);
  if (!to.model().renormalize()) plan.gate_scale = m / q;
  if (plan.keeps_hypernetwork) {
    if (to.hyper().scale() == HyperConfig::gate) plan.hyper_scale = plan.gate_scale;
    plan.embedding =
        MixOf(to.hyper(), from.model().top_k() == 1, static_cast<double>(plan.experts), m, q);
  }
  AddChanges(from, to, q, &plan);
  return plan;
}

bool KeepExpertLimits(int64_t num_experts, int64_t top_k, ModelConfig* model) {
  const double factor = static_cast<double>(num_experts) * model->top_k() /
                        (static_cast<double>(model->num_experts()) * static_cast<double>(top_k));
  bool any = false;
  for (CapacityConfig* capacity :
       {model->mutable_training_capacity(), model->mutable_evaluation_capacity()}) {
    if (capacity->mode() != CapacityConfig::factor_per_group) continue;
    capacity->set_factor(capacity->factor() * factor);
    any = true;
  }
  return any;
}

}  // namespace hypermoe
