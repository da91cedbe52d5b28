#include "model/hyper_generator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "model/hyper_init.h"

namespace hypermoe {
namespace {

constexpr double kNormEpsilon = 1e-5;

}  // namespace

HyperGenerator::HyperGenerator(const HyperConfig& config, const ModelConfig& model,
                               const std::vector<int64_t>& sparse_layers, ParameterFactory& factory)
    : config_(config),
      num_experts_(model.num_experts()),
      top_k_(model.top_k()),
      num_blocks_(NumBlocks(model)),
      width_(model.hidden_size()),
      bottleneck_(config.bottleneck_dim()),
      sparse_layers_(sparse_layers) {
  for (const int64_t block : sparse_layers) stacks_.push_back(StackOf(model, block));
  MakeEmbeddings(factory);
  MakeGenerators(factory);
}

std::vector<std::string> HyperGenerator::ScopeNames(HyperConfig::Scope scope) const {
  if (scope == HyperConfig::model) return {"model"};
  std::vector<std::string> names;
  for (size_t layer = 0; layer < sparse_layers_.size(); ++layer) {
    if (scope == HyperConfig::layer) {
      names.push_back(std::to_string(sparse_layers_[layer]));
    } else if (layer == 0 || stacks_[layer] != stacks_[layer - 1]) {
      names.push_back(stacks_[layer] == Stack::kEncoder ? "encoder" : "decoder");
    }
  }
  return names;
}

size_t HyperGenerator::IndexIn(HyperConfig::Scope scope, int64_t layer) const {
  if (scope == HyperConfig::model) return 0;
  const auto index = static_cast<size_t>(layer);
  if (scope == HyperConfig::layer) return index;
  return stacks_[index] == stacks_[0] ? 0 : 1;
}

void HyperGenerator::MakeEmbeddings(ParameterFactory& factory) {
  const HyperInit init(config_);
  const auto make = [&](const std::string& name, at::IntArrayRef shape, Init value) {
    return factory.Make("hypermoe." + name, shape, value, ParameterGroup::kHyper);
  };
  if (config_.condition() == HyperConfig::weights) {
    encoder_.emplace(config_, factory);
  } else if (config_.condition() != HyperConfig::hidden) {
    for (const std::string& scope : ScopeNames(config_.emb_scope())) {
      expert_embeddings_.push_back(make("expert_embedding." + scope + ".weight",
                                        {num_experts_, config_.expert_embedding_dim()},
                                        init.Embedding()));
    }
  }
  if (config_.condition() != HyperConfig::hidden) MakeSelectionMlps(factory);
  layer_embedding_ = make("layer_embedding.weight", {num_blocks_, config_.layer_embedding_dim()},
                          init.Embedding());
  for (const std::string& scope : ScopeNames(HyperConfig::layer)) {
    if (config_.scale() != HyperConfig::learned) break;
    factors_.push_back(make("scale." + scope, {1}, Init::Constant(1)));
  }
}

void HyperGenerator::MakeSelectionMlps(ParameterFactory& factory) {
  const HyperInit init(config_);
  const int64_t embedding = config_.expert_embedding_dim(), mlp = config_.mlp_hidden_dim(),
                selection = config_.selection_embedding_dim();
  for (const std::string& scope : ScopeNames(config_.sel_mlp_scope())) {
    const auto make = [&](const std::string& name, at::IntArrayRef shape, Init value) {
      return factory.Make("hypermoe.selection_mlp." + scope + name, shape, value,
                          ParameterGroup::kHyper);
    };
    selection_mlps_.push_back({make(".0.weight", {mlp, embedding}, init.LinearWeight(embedding)),
                               make(".0.bias", {mlp}, init.LinearBias(embedding)),
                               make(".2.weight", {selection, mlp}, init.LinearWeight(mlp)),
                               make(".2.bias", {selection}, init.LinearBias(mlp))});
  }
}

void HyperGenerator::MakeGenerators(ParameterFactory& factory) {
  const HyperInit init(config_);
  const int64_t hidden = config_.hidden_dim(), generated = width_ * bottleneck_;
  const int64_t input =
      config_.layer_embedding_dim() +
      (config_.condition() == HyperConfig::hidden ? width_ : config_.selection_embedding_dim());
  for (const std::string& scope : ScopeNames(config_.share())) {
    const std::string prefix = "hypermoe.generator." + scope + ".";
    const auto make = [&](const std::string& name, at::IntArrayRef shape, Init value) {
      return factory.Make(prefix + name, shape, value, ParameterGroup::kHyper);
    };
    Generator g;
    g.project = make("project.weight", {hidden, input}, init.LinearWeight(input));
    g.project_bias = make("project.bias", {hidden}, init.LinearBias(input));
    if (config_.k_norm() == HyperConfig::layernorm) {
      g.norm = make("norm.weight", {hidden}, Init::Constant(1));
      g.norm_bias = make("norm.bias", {hidden}, Init::Constant(0));
    }
    g.down = make("down.weight", {generated, hidden}, init.Down(num_experts_, top_k_, width_));
    if (config_.lin_bias()) g.down_bias = make("down.bias", {generated}, Init::Constant(0));
    g.up = make("up.weight", {generated, hidden}, init.Up());
    if (config_.lin_bias()) g.up_bias = make("up.bias", {generated}, Init::Constant(0));
    if (config_.gen_bias()) {
      g.down_offset = make("down_offset.weight", {bottleneck_, hidden}, init.DownOffset());
      g.down_offset_bias = make("down_offset.bias", {bottleneck_}, Init::Constant(0));
      g.up_offset = make("up_offset.weight", {width_, hidden}, init.UpOffset());
      g.up_offset_bias = make("up_offset.bias", {width_}, Init::Constant(0));
    }
    generators_.push_back(g);
  }
}

at::Tensor HyperGenerator::WeightsOfSelections(const at::Tensor& members_MK) const {
  const bool selected = config_.condition() == HyperConfig::selected;
  const int64_t members = selected ? top_k_ : num_experts_ - top_k_;
  const double weight =
      members == 0 || config_.agg() == HyperConfig::sum ? 1.0 : 1.0 / static_cast<double>(members);
  const at::Tensor weights_MN = at::zeros({members_MK.size(0), num_experts_},
                                          layer_embedding_.options().requires_grad(false));
  if (!selected) weights_MN.fill_(weight);
  return weights_MN.scatter_(1, members_MK.to(weights_MN.device()), selected ? weight : 0.0);
}

at::Tensor HyperGenerator::WeightsOfProbabilities(const at::Tensor& probs_TN) const {
  const at::Tensor z_TN = 1.0 - probs_TN.to(layer_embedding_.scalar_type());
  // A single expert has probability 1, which leaves no embedding to take the mean of.
  if (config_.agg() == HyperConfig::sum || num_experts_ == 1) return z_TN;
  return z_TN / z_TN.sum(1, /*keepdim=*/true);
}

const at::Tensor& HyperGenerator::EmbeddingsOf(int64_t layer) const {
  if (!encoder_) return expert_embeddings_[IndexIn(config_.emb_scope(), layer)];
  TORCH_CHECK(static_cast<int64_t>(expert_embeddings_.size()) == num_layers(),
              "the experts' embeddings were not given");
  return expert_embeddings_[static_cast<size_t>(layer)];
}

at::Tensor HyperGenerator::HiddenOfWeights(const at::Tensor& weights_MN, int64_t layer) const {
  const SelectionMlp& mlp = selection_mlps_[IndexIn(config_.sel_mlp_scope(), layer)];
  const at::Tensor e = at::mm(weights_MN, EmbeddingsOf(layer));
  return Hidden(at::linear(at::relu(at::linear(e, mlp.w1, mlp.c1)), mlp.w2, mlp.c2), layer);
}

at::Tensor HyperGenerator::HiddenOfInput(const at::Tensor& x_TD, int64_t layer) const {
  return Hidden(x_TD.to(layer_embedding_.scalar_type()), layer);
}

at::Tensor HyperGenerator::Hidden(const at::Tensor& p, int64_t layer) const {
  const Generator& generator = GeneratorOf(layer);
  const at::Tensor row = layer_embedding_.narrow(0, sparse_layers_[static_cast<size_t>(layer)], 1);
  at::Tensor k_MQ = at::linear(at::cat({p, row.expand({p.size(0), -1})}, 1), generator.project,
                               generator.project_bias);
  if (config_.k_act() == HyperConfig::relu) k_MQ = at::relu(k_MQ);
  if (!generator.norm.defined()) return k_MQ;
  return LayerNorm(k_MQ, generator.norm, generator.norm_bias, kNormEpsilon);
}

HyperExperts HyperGenerator::Generate(const Generator& generator, const at::Tensor& k_MQ) const {
  const int64_t count = k_MQ.size(0);
  HyperExperts experts;
  experts.down_MDA = LinearTransposed(k_MQ, generator.down, generator.down_bias)
                         .view({count, width_, bottleneck_});
  experts.up_MAD =
      LinearTransposed(k_MQ, generator.up, generator.up_bias).view({count, bottleneck_, width_});
  if (config_.gen_bias()) {
    experts.down_offset_MA =
        LinearTransposed(k_MQ, generator.down_offset, generator.down_offset_bias);
    experts.up_offset_MD = LinearTransposed(k_MQ, generator.up_offset, generator.up_offset_bias);
  }
  return experts;
}

HyperExperts HyperGenerator::Generate(const at::Tensor& k_MQ, int64_t layer) const {
  return Generate(GeneratorOf(layer), k_MQ);
}

HyperExperts HyperGenerator::GenerateAll(const std::vector<at::Tensor>& k_LMQ) const {
  if (generators_.size() == 1) return Generate(generators_[0], at::cat(k_LMQ));
  // Layers that share a generator follow each other.
  std::vector<std::vector<at::Tensor>> k_by_generator(generators_.size());
  for (size_t layer = 0; layer < k_LMQ.size(); ++layer) {
    k_by_generator[IndexIn(config_.share(), static_cast<int64_t>(layer))].push_back(k_LMQ[layer]);
  }
  std::vector<at::Tensor> down, up, down_offset, up_offset;
  for (size_t i = 0; i < generators_.size(); ++i) {
    const HyperExperts experts = Generate(generators_[i], at::cat(k_by_generator[i]));
    down.push_back(experts.down_MDA);
    up.push_back(experts.up_MAD);
    if (!config_.gen_bias()) continue;
    down_offset.push_back(experts.down_offset_MA);
    up_offset.push_back(experts.up_offset_MD);
  }
  HyperExperts all = {at::cat(down), at::cat(up), {}, {}};
  if (config_.gen_bias()) {
    all.down_offset_MA = at::cat(down_offset);
    all.up_offset_MD = at::cat(up_offset);
  }
  return all;
}

at::Tensor HyperGenerator::ApplyBilinear(const at::Tensor& x_TD, const at::Tensor& k_TQ,
                                         int64_t layer) const {
  const Generator& g = GeneratorOf(layer);
  const int64_t tokens = x_TD.size(0), hidden = config_.hidden_dim();
  const at::Tensor k = k_TQ.to(x_TD.scalar_type());
  const at::Tensor v_TAQ = Linear(x_TD, g.down.view({width_, bottleneck_ * hidden}), {})
                               .view({tokens, bottleneck_, hidden});
  at::Tensor pre_TA = at::bmm(v_TAQ, k.unsqueeze(2)).squeeze(2);
  if (g.down_bias.defined()) {
    pre_TA = pre_TA + Linear(x_TD, g.down_bias.view({width_, bottleneck_}), {});
  }
  if (config_.gen_bias()) pre_TA = pre_TA + LinearTransposed(k, g.down_offset, g.down_offset_bias);
  const at::Tensor h_TA = at::relu(pre_TA);

  const at::Tensor outer =
      (h_TA.unsqueeze(2) * k.unsqueeze(1)).view({tokens, bottleneck_ * hidden});
  const at::Tensor up = g.up.view({bottleneck_, width_, hidden}).permute({0, 2, 1});
  at::Tensor y_TD = Linear(outer, up.reshape({bottleneck_ * hidden, width_}), {});
  if (g.up_bias.defined()) y_TD = y_TD + Linear(h_TA, g.up_bias.view({bottleneck_, width_}), {});
  if (config_.gen_bias()) y_TD = y_TD + LinearTransposed(k, g.up_offset, g.up_offset_bias);
  return y_TD;
}

at::Tensor HyperGenerator::Factor(int64_t layer) const {
  return factors_.empty() ? at::Tensor() : factors_[static_cast<size_t>(layer)];
}

}  // namespace hypermoe
