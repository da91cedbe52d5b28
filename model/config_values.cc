#include "model/config_values.h"

#include <algorithm>
#include <cmath>

namespace hypermoe {
namespace {

// A block of a stack whose every step-th block is sparse.
bool IsSparse(int64_t index, int64_t step) { return step == 1 || (step > 1 && index % step == 1); }

}  // namespace

double ResidualInitStd(const ModelConfig& config) {
  return config.init_std() / std::sqrt(2.0 * config.num_layers());
}

bool HasEncoder(const ModelConfig& config) {
  return config.family() == ModelConfig::switch_transformers;
}

int64_t EncoderBlocks(const ModelConfig& config) {
  return HasEncoder(config) ? config.num_layers() : 0;
}

int64_t DecoderBlocks(const ModelConfig& config) {
  return HasEncoder(config) ? config.num_decoder_layers() : config.num_layers();
}

int64_t NumBlocks(const ModelConfig& config) {
  return EncoderBlocks(config) + DecoderBlocks(config);
}

Stack StackOf(const ModelConfig& config, int64_t block) {
  return block < EncoderBlocks(config) ? Stack::kEncoder : Stack::kDecoder;
}

std::vector<int64_t> SparseLayers(const ModelConfig& config) {
  std::vector<int64_t> layers;
  if (config.kind() == ModelConfig::dense) return layers;
  const auto& chosen = config.sparse_layers();
  const auto is_sparse = [&](int64_t block) {
    if (!HasEncoder(config)) {
      return chosen.empty() || std::find(chosen.begin(), chosen.end(), block) != chosen.end();
    }
    return StackOf(config, block) == Stack::kEncoder
               ? IsSparse(block, config.encoder_sparse_step())
               : IsSparse(block - EncoderBlocks(config), config.decoder_sparse_step());
  };
  for (int64_t block = 0; block < NumBlocks(config); ++block) {
    if (is_sparse(block)) layers.push_back(block);
  }
  return layers;
}

int64_t HeadSize(const ModelConfig& config) {
  return config.head_size() > 0 ? config.head_size() : config.hidden_size() / config.num_heads();
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

double DenseInnerDropoutOf(const ModelConfig& config) {
  return HasEncoder(config) ? config.dropout() : 0;
}

double ExpertInnerDropoutOf(const ModelConfig& config) {
  return config.expert_dropout() < 0 ? DenseInnerDropoutOf(config) : config.expert_dropout();
}

}  // namespace hypermoe
