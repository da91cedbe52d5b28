#include "model/config_values.h"

#include <cmath>

namespace hypermoe {

double ResidualInitStd(const ModelConfig& config) {
  return config.init_std() / std::sqrt(2.0 * config.num_layers());
}

Activation ActivationOf(const ModelConfig& config) {
  switch (config.activation()) {
    case ModelConfig::gelu:
      return Activation::kGelu;
    case ModelConfig::relu:
      return Activation::kRelu;
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
