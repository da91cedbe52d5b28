#include "model/config_values.h"

#include <algorithm>
#include <cmath>

namespace hypermoe {

double ResidualInitStd(const ModelConfig& config) {
  return config.init_std() / std::sqrt(2.0 * config.num_layers());
}

std::vector<int64_t> SparseLayers(const ModelConfig& config) {
  std::vector<int64_t> layers;
  if (config.kind() == ModelConfig::dense) return layers;
  for (int layer = 0; layer < config.num_layers(); ++layer) {
    const auto& chosen = config.sparse_layers();
    if (chosen.empty() || std::find(chosen.begin(), chosen.end(), layer) != chosen.end())
      layers.push_back(layer);
  }
  return layers;
}

Activation ActivationOf(const ModelConfig& config) {
  switch (config.activation()) {
    case ModelConfig::gelu:
      return Activation::kGelu;
    case ModelConfig::relu:
      return Activation::kRelu;
    case ModelConfig::silu:
      return Activation::kSilu;
    case ModelConfig::gelu_new:
      break;
  }
  return Activation::kGeluTanh;
}

double EmbeddingDropoutOf(const ModelConfig& config) {
  return config.embedding_dropout() < 0 ? config.dropout() : config.embedding_dropout();
}

double AttentionDropoutOf(const ModelConfig& config) {
  return config.attention_dropout() < 0 ? config.dropout() : config.attention_dropout();
}

}  // namespace hypermoe
