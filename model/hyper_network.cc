#include "model/hyper_network.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>

#include "kernels/grouped_ffn.h"

namespace hypermoe {
namespace {

// Every (layer, selected expert) as a row of weights over that layer's expert embeddings: the mean
// of the others (Eq. 5, 6).
at::Tensor MeanOfUnselected(int64_t num_experts, const at::TensorOptions& options) {
  if (num_experts == 1) return at::zeros({1, 1}, options);
  return (at::ones({num_experts, num_experts}, options) - at::eye(num_experts, options)) /
         static_cast<double>(num_experts - 1);
}

Init LinearInit(int64_t fan_in) {
  return Init::Uniform(1.0 / std::sqrt(static_cast<double>(fan_in)));
}

// Bound of the initial W_D: the entries of Down get variance 1/D, so that x Down keeps the scale of
// x. Var(Down) = q E[k^2] Var(W_D); E[k^2] follows the initial distributions through the layers: a
// sum of n terms with uniform weights in
// +-1/sqrt(n) and the same for the bias has variance (v + 1/n) / 3 for inputs of mean square v, and
// relu halves it.
double DownInitBound(const HyperConfig& config, int64_t num_experts, int64_t width) {
  const auto linear = [](double mean_square, double fan_in) {
    return (mean_square + 1.0 / fan_in) / 3.0;
  };
  const double embedding = num_experts > 1 ? 1.0 / static_cast<double>(num_experts - 1) : 0.0;
  const double mlp_hidden = linear(embedding, config.expert_embedding_dim()) / 2.0;
  const double selection = linear(mlp_hidden, config.mlp_hidden_dim());
  const double t = config.selection_embedding_dim(), l = config.layer_embedding_dim();
  const double hidden = linear((t * selection + l * 1.0) / (t + l), t + l) / 2.0;
  return std::sqrt(3.0 / (static_cast<double>(width) * config.hidden_dim() * hidden));
}

}  // namespace

HyperNetwork::HyperNetwork(const HyperConfig& config, const ModelConfig& model,
                           const std::vector<int64_t>& sparse_layers, ExpertRange local,
                           ParameterFactory& factory)
    : config_(config),
      num_experts_(model.num_experts()),
      width_(model.hidden_size()),
      generated_experts_(at_owner() ? local : ExpertRange{0, num_experts_}),
      sparse_layers_(sparse_layers) {
  const int64_t embedding = config.expert_embedding_dim(), mlp = config.mlp_hidden_dim(),
                selection = config.selection_embedding_dim(), layer = config.layer_embedding_dim(),
                hidden = config.hidden_dim(), generated = width_ * config.bottleneck_dim();
  const auto make = [&](const std::string& name, at::IntArrayRef shape, Init init) {
    return factory.Make("hypermoe." + name, shape, init, ParameterGroup::kHyper);
  };
  for (const int64_t block : sparse_layers) {
    const std::string scope = std::to_string(block);
    layers_.push_back(
        {make("expert_embedding." + scope + ".weight", {num_experts_, embedding},
              Init::Normal(1.0)),
         make("selection_mlp." + scope + ".0.weight", {mlp, embedding}, LinearInit(embedding)),
         make("selection_mlp." + scope + ".0.bias", {mlp}, LinearInit(embedding)),
         make("selection_mlp." + scope + ".2.weight", {selection, mlp}, LinearInit(mlp)),
         make("selection_mlp." + scope + ".2.bias", {selection}, LinearInit(mlp))});
  }
  layer_embedding_ = make("layer_embedding.weight", {model.num_layers(), layer}, Init::Normal(1.0));
  project_ = make("generator.model.project.weight", {hidden, selection + layer},
                  LinearInit(selection + layer));
  project_bias_ = make("generator.model.project.bias", {hidden}, LinearInit(selection + layer));
  down_ = make("generator.model.down.weight", {generated, hidden},
               Init::Uniform(DownInitBound(config, num_experts_, width_)));
  down_bias_ = make("generator.model.down.bias", {generated}, Init::Constant(0));
  up_ = make("generator.model.up.weight", {generated, hidden}, Init::Constant(0));
  up_bias_ = make("generator.model.up.bias", {generated}, Init::Constant(0));
}

at::Tensor HyperNetwork::SelectionEmbedding(const LayerParameters& layer,
                                            const at::Tensor& unselected) const {
  const at::Tensor e = at::mm(unselected, layer.expert_embedding);
  return at::linear(at::relu(at::linear(e, layer.w1, layer.c1)), layer.w2, layer.c2);
}

at::Tensor HyperNetwork::HiddenVectors(const at::Tensor& selection, int64_t sparse_index) const {
  const int64_t block = sparse_layers_[static_cast<size_t>(sparse_index)];
  const at::Tensor layer = layer_embedding_.narrow(0, block, 1).expand({selection.size(0), -1});
  return at::relu(at::linear(at::cat({selection, layer}, 1), project_, project_bias_));
}

void HyperNetwork::Generate() {
  const int64_t experts = generated_experts_.size();
  const at::Tensor unselected_EN =
      MeanOfUnselected(num_experts_, down_.options()).narrow(0, generated_experts_.begin, experts);
  std::vector<at::Tensor> hidden;
  for (size_t i = 0; i < layers_.size(); ++i) {
    hidden.push_back(
        HiddenVectors(SelectionEmbedding(layers_[i], unselected_EN), static_cast<int64_t>(i)));
  }
  const at::Tensor k_MQ = at::cat(hidden);
  const auto num_layers = static_cast<int64_t>(layers_.size());
  const int64_t bottleneck = config_.bottleneck_dim();
  generated_down_LNDA_ =
      at::linear(k_MQ, down_, down_bias_).view({num_layers, experts, width_, bottleneck});
  generated_up_LNAD_ =
      at::linear(k_MQ, up_, up_bias_).view({num_layers, experts, bottleneck, width_});

  leaf_down_NDA_ = generated_down_LNDA_.detach().unbind(0);
  leaf_up_NAD_ = generated_up_LNAD_.detach().unbind(0);
  if (generated_down_LNDA_.requires_grad()) {
    if (!grad_down_LNDA_.defined()) {
      grad_down_LNDA_ = at::zeros_like(generated_down_LNDA_.detach());
      grad_up_LNAD_ = at::zeros_like(generated_up_LNAD_.detach());
    }
    grad_down_LNDA_.zero_();
    grad_up_LNAD_.zero_();
    for (size_t i = 0; i < layers_.size(); ++i) {
      leaf_down_NDA_[i].set_requires_grad(true).mutable_grad() =
          grad_down_LNDA_[static_cast<int64_t>(i)];
      leaf_up_NAD_[i].set_requires_grad(true).mutable_grad() =
          grad_up_LNAD_[static_cast<int64_t>(i)];
    }
  }
  ++generations_;
}

void HyperNetwork::Invalidate() {
  generated_down_LNDA_ = generated_up_LNAD_ = at::Tensor();
  leaf_down_NDA_.clear();
  leaf_up_NAD_.clear();
}

void HyperNetwork::Prepare() {
  if (config_.execution() == HyperConfig::per_token) return;
  // HyperExperts made for evaluation have no graph; a step that will run backward needs one.
  const bool current = generated_down_LNDA_.defined() &&
                       (generated_down_LNDA_.requires_grad() || !at::GradMode::is_enabled());
  if (!current) Generate();
}

at::Tensor HyperNetwork::Apply(const at::Tensor& sorted_TD,
                               const std::vector<int64_t>& rows_per_expert, int64_t sparse_index) {
  if (config_.execution() == HyperConfig::per_token)
    return ApplyPerToken(sorted_TD, rows_per_expert, sparse_index);
  Prepare();
  const auto i = static_cast<size_t>(sparse_index);
  return GroupedFfn(sorted_TD, rows_per_expert, {leaf_down_NDA_[i], {}, leaf_up_NAD_[i], {}},
                    Activation::kRelu);
}

void HyperNetwork::BackwardThroughGeneration() {
  if (config_.execution() == HyperConfig::per_token || !generated_down_LNDA_.defined()) return;
  torch::autograd::backward({generated_down_LNDA_, generated_up_LNAD_},
                            {grad_down_LNDA_, grad_up_LNAD_});
  Invalidate();
}

// The equations as they stand, for every token by itself: the definition that Apply is tested
// against.
at::Tensor HyperNetwork::ApplyPerToken(const at::Tensor& sorted_TD,
                                       const std::vector<int64_t>& rows_per_expert,
                                       int64_t sparse_index) const {
  const int64_t tokens = sorted_TD.size(0), bottleneck = config_.bottleneck_dim();
  std::vector<int64_t> expert_ids;
  for (size_t expert = 0; expert < rows_per_expert.size(); ++expert) {
    expert_ids.insert(expert_ids.end(), rows_per_expert[expert], static_cast<int64_t>(expert));
  }
  const at::Tensor expert_ids_T = at::tensor(expert_ids, at::kLong);
  const at::Tensor z_TN =
      MeanOfUnselected(num_experts_, down_.options()).index_select(0, expert_ids_T);
  const at::Tensor k_TQ = HiddenVectors(
      SelectionEmbedding(layers_[static_cast<size_t>(sparse_index)], z_TN), sparse_index);
  const at::Tensor down_TDA =
      at::linear(k_TQ, down_, down_bias_).view({tokens, width_, bottleneck});
  const at::Tensor up_TAD = at::linear(k_TQ, up_, up_bias_).view({tokens, bottleneck, width_});
  const at::Tensor x_T1D = sorted_TD.to(down_.scalar_type()).unsqueeze(1);
  const at::Tensor y_T1D = at::bmm(at::relu(at::bmm(x_T1D, down_TDA)), up_TAD);
  return y_T1D.squeeze(1).to(sorted_TD.scalar_type());
}

}  // namespace hypermoe
