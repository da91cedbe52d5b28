#include "runtime/grown_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/keyed_random.h"
#include "runtime/checkpoint_manifest.h"

namespace hypermoe {
namespace {

using Kind = TensorRecipe::Kind;

constexpr char kMlp[] = ".mlp.";
constexpr char kExpert[] = "experts.expert_";
constexpr char kGate[] = "router.w_gate";                   // [D,N]
constexpr char kClassifier[] = "router.classifier.weight";  // [N,D]: of an encoder-decoder
constexpr char kBias[] = "router.classifier.bias";          // [N]: there, with model.router_bias
constexpr char kNoise[] = "router.w_noise";

// Of a tensor of expert `number` of a sparse block whose names begin with `prefix` ("h.3.mlp.").
TensorRecipe ExpertRecipe(const GrowthPlan& plan, const std::string& prefix, int64_t number,
                          const std::string& tensor) {
  TensorRecipe recipe;
  recipe.source = plan.from.kind() == ModelConfig::dense
                      ? absl::StrCat(prefix, tensor)
                      : absl::StrCat(prefix, kExpert, number % plan.experts, ".", tensor);
  if (absl::StartsWith(tensor, "c_proj.") || absl::StartsWith(tensor, "wo."))
    recipe.factor = plan.gate_scale;
  return recipe;
}

TensorRecipe RouterRecipe(const GrowthPlan& plan, const std::string& name) {
  const bool dense = plan.from.kind() == ModelConfig::dense;
  if (absl::EndsWith(name, kNoise) && (dense || plan.from.router() != ModelConfig::noisy_topk))
    return {Kind::kFresh, name, 1};
  const bool bias = absl::EndsWith(name, kBias);
  if (dense || (bias && !plan.from.router_bias())) return {Kind::kZero, name, 1};
  const bool rows = bias || absl::EndsWith(name, kClassifier);
  return {rows ? Kind::kClonedRows : Kind::kClonedColumns, name, 1};
}

TensorRecipe HyperRecipe(const GrowthPlan& plan, const std::string& name) {
  if (!plan.keeps_hypernetwork) return {Kind::kFresh, name, 1};
  if (absl::StartsWith(name, "hypermoe.expert_embedding.")) return {Kind::kMix, name, 1};
  // The network's last convolution, after which relu keeps a positive factor.
  if (absl::StartsWith(name, "hypermoe.weight_encoder.3."))
    return {Kind::kCopy, name, plan.EncodesWhatItDid() ? plan.embedding.own : 1};
  const bool last = absl::StartsWith(name, "hypermoe.generator.") &&
                    (absl::StrContains(name, ".up.") || absl::StrContains(name, ".up_offset."));
  return {Kind::kCopy, name, last ? plan.hyper_scale : 1};
}

TensorRecipe SubLayerRecipe(const GrowthPlan& plan, const std::string& prefix,
                            const std::string& tensor) {
  const std::string name = prefix + tensor;
  if (absl::StartsWith(tensor, kExpert)) {
    const std::string rest = tensor.substr(sizeof(kExpert) - 1);
    return ExpertRecipe(plan, prefix, std::atoll(rest.c_str()), rest.substr(rest.find('.') + 1));
  }
  if (IsRouterMatrix(name) || tensor == kNoise || tensor == kBias) return RouterRecipe(plan, name);
  // A shared expert or an adapter that only the target's kind has.
  const bool side =
      absl::StartsWith(tensor, "shared_expert.") || absl::StartsWith(tensor, "adapter.");
  return {side && plan.from.kind() != plan.to.kind() ? Kind::kFresh : Kind::kCopy, name, 1};
}

// A value of `factor` times the size has 1 / factor of the gradient, and Adam's second moment is of
// squares.
double FactorOf(double factor, std::optional<AdamW::Moment> moment) {
  if (!moment.has_value()) return factor;
  return *moment == AdamW::Moment::kFirst ? 1 / factor : 1 / (factor * factor);
}

// The tensor once for each clone, along `axis`.
at::Tensor Cloned(const at::Tensor& source, int64_t axis, int64_t clones) {
  std::vector<int64_t> repeats(static_cast<size_t>(source.dim()), 1);
  if (!repeats.empty()) repeats[static_cast<size_t>(axis)] = clones;
  return source.repeat(repeats);
}

}  // namespace

bool IsRouterMatrix(const std::string& name) {
  return absl::EndsWith(name, kGate) || absl::EndsWith(name, kClassifier);
}

TensorRecipe RecipeOf(const GrowthPlan& plan, const std::string& name) {
  if (name == "wpe.weight" && plan.to.sequence_length() < plan.from.sequence_length())
    return {Kind::kFirstRows, name, 1};
  if (absl::StartsWith(name, "hypermoe.")) return HyperRecipe(plan, name);
  const size_t mlp = name.find(kMlp);
  if (mlp == std::string::npos) return {Kind::kCopy, name, 1};
  const size_t begin = mlp + sizeof(kMlp) - 1;
  return SubLayerRecipe(plan, name.substr(0, begin), name.substr(begin));
}

GrownTensors::GrownTensors(std::shared_ptr<const TensorSource> source, const GrowthPlan& plan,
                           const std::vector<Parameter>& target,
                           std::optional<AdamW::Moment> moment)
    : source_(std::move(source)), plan_(plan), moment_(moment) {
  for (const Parameter& parameter : target) {
    if (parameter.group != ParameterGroup::kExpert) {
      for (const NamedTensor& view : GlobalViews(parameter, parameter.value))
        Add(view.name, view.tensor);
      continue;
    }
    // Of the whole model, also experts that other ranks hold. None of them is fresh or zero.
    for (int64_t e = 0; e < plan.to.num_experts(); ++e) Add(ExpertName(parameter, e), {});
  }
  if (!moment_.has_value()) AddUnneeded();
}

std::string GrownTensors::SourceName(const std::string& name) const {
  if (!moment_.has_value()) return name;
  return StatePrefix(AdamW::kKinds[*moment_]) + name;
}

void GrownTensors::Add(const std::string& name, const at::Tensor& initial) {
  TensorRecipe recipe = RecipeOf(plan_, name);
  const bool mixes =
      recipe.kind == Kind::kMix && (plan_.embedding.all != 0 || plan_.embedding.own == 0);
  if (moment_.has_value() && (mixes || recipe.kind == Kind::kFresh)) recipe.kind = Kind::kZero;
  if (recipe.kind == Kind::kFresh || recipe.kind == Kind::kZero) {
    entries_[name] = {initial.scalar_type(), initial.sizes().vec()};
    made_[name] = {std::move(recipe), initial};
    return;
  }
  const auto found = source_->entries().find(SourceName(recipe.source));
  if (found == source_->entries().end()) return;
  entries_[name] = EntryOf(recipe, found->second);
  made_[name] = {std::move(recipe), {}};
}

void GrownTensors::AddUnneeded() {
  std::set<std::string> needed;
  for (const auto& [name, made] : made_) needed.insert(made.recipe.source);
  for (const auto& [name, entry] : source_->entries()) {
    const bool old_noise =
        absl::EndsWith(name, kNoise) && plan_.to.router() != ModelConfig::noisy_topk;
    if (old_noise || needed.count(name) > 0) continue;
    entries_.emplace(name, entry);
    made_.emplace(name, Made{{Kind::kCopy, name, 1}, {}});
  }
}

TensorEntry GrownTensors::EntryOf(const TensorRecipe& recipe, const TensorEntry& source) const {
  TensorEntry entry = source;
  const auto axes = entry.shape.size();
  switch (recipe.kind) {
    case Kind::kFirstRows:
      if (axes > 0) entry.shape[0] = std::min<int64_t>(entry.shape[0], plan_.to.sequence_length());
      break;
    case Kind::kClonedRows:
      if (axes > 0) entry.shape[0] *= plan_.clones;
      break;
    case Kind::kClonedColumns:
      if (axes > 0) entry.shape[axes - 1] *= plan_.clones;
      break;
    case Kind::kMix:
      if (axes > 0) entry.shape[0] *= plan_.clones;
      entry.dtype = at::kDouble;
      break;
    default:
      if (recipe.factor != 1) entry.dtype = at::kDouble;
  }
  return entry;
}

at::Tensor GrownTensors::Make(const TensorRecipe& recipe, const at::Tensor& source) const {
  switch (recipe.kind) {
    case Kind::kFirstRows:
      return source.narrow(0, 0, std::min<int64_t>(source.size(0), plan_.to.sequence_length()));
    case Kind::kClonedRows:
      return Cloned(source, 0, plan_.clones);
    case Kind::kClonedColumns:
      return Cloned(source, source.dim() - 1, plan_.clones);
    case Kind::kMix: {
      const at::Tensor wide = source.to(at::kDouble);
      const at::Tensor mixed = wide * FactorOf(plan_.embedding.own, moment_) +
                               wide.sum(0, /*keepdim=*/true) * plan_.embedding.all;
      return Cloned(mixed, 0, plan_.clones);
    }
    default:
      return recipe.factor == 1 ? source
                                : source.to(at::kDouble) * FactorOf(recipe.factor, moment_);
  }
}

absl::StatusOr<at::Tensor> GrownTensors::Read(const std::string& name) const {
  const at::NoGradGuard no_grad;
  const auto found = made_.find(name);
  if (found == made_.end()) return DataError(absl::StrCat("no tensor '", name, "'"));
  const auto& [recipe, initial] = found->second;
  if (recipe.kind == Kind::kFresh) return initial;
  if (recipe.kind == Kind::kZero) return at::zeros_like(initial);
  ASSIGN_OR_RETURN(const at::Tensor source, source_->Read(SourceName(recipe.source)));
  return Make(recipe, source);
}

bool GrownTensors::Changes(const std::string& name) const {
  const auto found = made_.find(name);
  if (found == made_.end()) return false;
  const TensorRecipe& recipe = found->second.recipe;
  return recipe.kind == Kind::kFresh || recipe.kind == Kind::kZero || recipe.kind == Kind::kMix ||
         recipe.factor != 1;
}

void SeparateClones(const GrowthPlan& plan, double amount, uint64_t seed,
                    std::vector<Parameter>& parameters) {
  const at::NoGradGuard no_grad;
  if (plan.clones == 1 || amount == 0) return;
  for (Parameter& parameter : parameters) {
    if (!IsRouterMatrix(parameter.name)) continue;
    // As it is kept, whatever its name says.
    const at::Tensor gate_DN = parameter.value.detach();
    const double rms = gate_DN.to(at::kDouble).square().mean().sqrt().item<double>();
    const double scale = rms > 0 ? rms : 1 / std::sqrt(static_cast<double>(gate_DN.size(0)));
    const RandomKey key = RandomKey{seed, 0}.Derive("clone jitter").Derive(parameter.name);
    for (int64_t e = 0; e < gate_DN.size(1); ++e) {
      const at::Tensor noise_D = at::empty({gate_DN.size(0)}, gate_DN.options());
      FillNormal(noise_D, key.Derive(static_cast<uint64_t>(e)), amount * scale);
      gate_DN.select(1, e).add_(noise_D);
    }
  }
}

}  // namespace hypermoe
