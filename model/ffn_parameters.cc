#include "model/ffn_parameters.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <functional>
#include <vector>

#include "model/config_values.h"

namespace hypermoe {
namespace {

struct FfnStyle {
  const char *up, *down;  // names of the matrices
  bool biases;
  NamedAs named_as;
};

FfnStyle StyleOf(const ModelConfig& config) {
  return HasEncoder(config) ? FfnStyle{"wi", "wo", false, NamedAs::kTransposed}
                            : FfnStyle{"c_fc", "c_proj", true, NamedAs::kKept};
}

// initializer_factor / sqrt(fan_in).
Init FanIn(const ModelConfig& config, int64_t fan_in) {
  return Init::Normal(config.initializer_factor() / std::sqrt(static_cast<double>(fan_in)));
}

Init UpInit(const ModelConfig& config) {
  return HasEncoder(config) ? FanIn(config, config.hidden_size()) : Init::Normal(config.init_std());
}

Init DownInit(const ModelConfig& config) {
  return HasEncoder(config) ? FanIn(config, config.ffn_size())
                            : Init::Normal(ResidualInitStd(config));
}

// Hugging Face takes the width for both matrices of experts.
Init ExpertDownInit(const ModelConfig& config) {
  return HasEncoder(config) ? UpInit(config) : DownInit(config);
}

using Make = std::function<at::Tensor(const std::string& name, at::IntArrayRef shape, Init init)>;

GroupedFfnWeights MakeFfn(const std::string& prefix, const ModelConfig& config, Init down,
                          const Make& make) {
  const int64_t width = config.hidden_size(), inner = config.ffn_size();
  const FfnStyle style = StyleOf(config);
  const std::string up_name = prefix + style.up, down_name = prefix + style.down;
  GroupedFfnWeights weights;
  weights.up_GDF = make(up_name + ".weight", {width, inner}, UpInit(config));
  if (style.biases) weights.up_GF = make(up_name + ".bias", {inner}, Init::Constant(0));
  weights.down_GFD = make(down_name + ".weight", {inner, width}, down);
  if (style.biases) weights.down_GD = make(down_name + ".bias", {width}, Init::Constant(0));
  return weights;
}

Make Replicated(const ModelConfig& config, ParameterFactory& factory) {
  return [&](const std::string& name, at::IntArrayRef shape, Init init) {
    return factory.Make(name, shape, init, ParameterGroup::kDense, StyleOf(config).named_as);
  };
}

}  // namespace

GroupedFfnWeights MakeDenseFfn(const std::string& prefix, const ModelConfig& config,
                               ParameterFactory& factory) {
  return MakeFfn(prefix, config, DownInit(config), Replicated(config, factory));
}

GroupedFfnWeights MakeExpertFfns(const std::string& prefix, const ModelConfig& config,
                                 ExpertRange local, ParameterFactory& factory) {
  return MakeFfn(prefix + "experts.expert_{e}.", config, ExpertDownInit(config),
                 [&](const std::string& name, at::IntArrayRef shape, Init init) {
                   return factory.MakeExperts(name, local, shape, init, StyleOf(config).named_as);
                 });
}

GroupedFfnWeights MakeSharedFfn(const std::string& prefix, const ModelConfig& config,
                                ParameterFactory& factory) {
  return MakeFfn(prefix + "shared_expert.", config, Init::Constant(0), Replicated(config, factory));
}

std::string FeedForwardPrefix(const ModelConfig& config, int64_t block) {
  if (!HasEncoder(config)) return "h." + std::to_string(block) + ".mlp.";
  const bool decoder = StackOf(config, block) == Stack::kDecoder;
  return (decoder ? "decoder.block." : "encoder.block.") +
         std::to_string(decoder ? block - EncoderBlocks(config) : block) + ".layer." +
         (decoder ? "2" : "1") + ".mlp.";
}

ExpertMatrices NamesOfExpert(const ModelConfig& config, int64_t block, int64_t expert) {
  const FfnStyle style = StyleOf(config);
  const std::string prefix =
      FeedForwardPrefix(config, block) + "experts.expert_" + std::to_string(expert) + ".";
  return {prefix + style.up + ".weight", prefix + style.down + ".weight",
          style.named_as == NamedAs::kTransposed};
}

at::Tensor MakeRouterMatrix(const std::string& prefix, const ModelConfig& config,
                            ParameterFactory& factory) {
  const std::vector<int64_t> shape = {config.hidden_size(), config.num_experts()};
  if (!HasEncoder(config)) {
    return factory.Make(prefix + "w_gate", shape, Init::Normal(config.init_std()));
  }
  return factory.Make(prefix + "classifier.weight", shape,
                      Init::Normal(config.initializer_factor()), ParameterGroup::kDense,
                      NamedAs::kTransposed);
}

at::Tensor MakeRouterBias(const std::string& prefix, const ModelConfig& config,
                          ParameterFactory& factory) {
  if (!config.router_bias()) return {};
  TORCH_CHECK(HasEncoder(config), "model.router_bias is of family switch_transformers alone");
  return factory.Make(prefix + "classifier.bias", {config.num_experts()}, Init::Constant(0));
}

}  // namespace hypermoe
