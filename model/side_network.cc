#include "model/side_network.h"

#include <cmath>

#include "model/config_values.h"
#include "model/ffn_parameters.h"

namespace hypermoe {

SideNetwork::SideNetwork(const std::string& prefix, const ModelConfig& config,
                         int64_t adapter_width, ParameterFactory& factory)
    : adapter_(config.kind() == ModelConfig::adapter), activation_(ActivationOf(config)) {
  if (adapter_) {
    const int64_t width = config.hidden_size();
    const std::string name = prefix + "adapter.";
    const Init zero = Init::Constant(0);
    const Init fan_in = Init::Uniform(1.0 / std::sqrt(static_cast<double>(width)));
    weights_.up_GDF = factory.Make(name + "down.weight", {adapter_width, width}, fan_in);
    weights_.up_GF = factory.Make(name + "down.bias", {adapter_width}, zero);
    weights_.down_GFD = factory.Make(name + "up.weight", {width, adapter_width}, zero);
    weights_.down_GD = factory.Make(name + "up.bias", {width}, zero);
  } else if (config.kind() == ModelConfig::moe_share) {
    weights_ = MakeSharedFfn(prefix, config, factory);
  }
}

at::Tensor SideNetwork::Forward(const at::Tensor& x_TD, const InnerDropout& dropout) const {
  if (!weights_.up_GDF.defined()) return {};
  if (!adapter_) return GroupedFfn(x_TD, {x_TD.size(0)}, weights_, activation_, dropout);
  // Its matrices are stored as [out, in] (checkpoint names).
  GroupedFfnWeights turned = weights_;
  turned.up_GDF = weights_.up_GDF.t();
  turned.down_GFD = weights_.down_GFD.t();
  return GroupedFfn(x_TD, {x_TD.size(0)}, turned, Activation::kRelu);
}

}  // namespace hypermoe
