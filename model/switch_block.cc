#include "model/switch_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <string>

#include "kernels/keyed_dropout.h"
#include "kernels/rms_norm.h"
#include "model/config_values.h"
#include "model/ffn_parameters.h"

namespace hypermoe {

SwitchBlock::SwitchBlock(const ModelConfig& config, int64_t block, const SparseParts* sparse,
                         ParameterFactory& factory)
    : config_(config), block_(block) {
  const bool decoder = StackOf(config, block) == Stack::kDecoder;
  index_ = static_cast<size_t>(decoder ? block - EncoderBlocks(config) : block);
  const std::string stack = decoder ? "decoder" : "encoder";
  const std::string prefix = stack + ".block." + std::to_string(index_) + ".layer.";
  const auto make_norm = [&](const std::string& layer) {
    return factory.Make(layer + "layer_norm.weight", {config.hidden_size()}, Init::Constant(1));
  };
  int layer = 0;
  const auto next = [&] { return prefix + std::to_string(layer++) + "."; };
  const std::string self = next();
  self_attention_.emplace(self + "SelfAttention.", config, factory);
  self_norm_D_ = make_norm(self);
  if (decoder) {
    const std::string cross = next();
    cross_attention_.emplace(cross + "EncDecAttention.", config, factory);
    cross_norm_D_ = make_norm(cross);
  }
  const std::string last = next();
  feed_forward_.emplace(FeedForwardPrefix(config, block), config, block, sparse, factory);
  feed_forward_norm_D_ = make_norm(last);
}

at::Tensor SwitchBlock::Forward(const at::Tensor& x_TD, const SwitchPass& pass,
                                std::vector<RoutingResult>* routing, MoeRecord* record) const {
  const auto norm = [this](const at::Tensor& x, const at::Tensor& weight_D) {
    return RmsNorm(x, weight_D, config_.layer_norm_epsilon());
  };
  at::Tensor y_TD =
      Add(x_TD, SelfAttention(norm(x_TD, self_norm_D_), pass), "self-attention output", pass);
  if (InDecoder()) {
    y_TD =
        Add(y_TD, CrossAttention(norm(y_TD, cross_norm_D_), pass), "cross-attention output", pass);
  }
  const at::Tensor ffn_TD = feed_forward_->Forward(norm(y_TD, feed_forward_norm_D_), pass.row_ids_B,
                                                   pass.mode, routing, record);
  return Add(y_TD, ffn_TD, "feed-forward output", pass);
}

at::Tensor SwitchBlock::SelfAttention(const at::Tensor& x_TD, const SwitchPass& pass) const {
  SwitchAttention::KeysValues own =
      self_attention_->Project(x_TD, pass.row_ids_B.numel(), pass.positions);
  AttentionBias bias;
  bias.bias_HSL = pass.bias_HSL;
  bias.causal = InDecoder();
  bias.for_gradients = pass.mode.training;
  if (!InDecoder()) bias.allowed_BL = pass.attention_mask_BE;
  if (InDecoder() && pass.mode.cache != nullptr) {
    at::Tensor &cached_keys = pass.mode.cache->keys[index_],
               &cached_values = pass.mode.cache->values[index_];
    if (cached_keys.defined()) {
      own.keys_BHLC = at::cat({cached_keys, own.keys_BHLC}, 2);
      own.values_BHLC = at::cat({cached_values, own.values_BHLC}, 2);
    }
    cached_keys = own.keys_BHLC;
    cached_values = own.values_BHLC;
  }
  return self_attention_->Attend(x_TD, own, bias, pass.positions,
                                 DropoutOf("self-attention probabilities", pass));
}

at::Tensor SwitchBlock::CrossAttention(const at::Tensor& x_TD, const SwitchPass& pass) const {
  SwitchAttention::KeysValues of_encoder;
  KeyValueCache* cache = pass.mode.cache;
  if (pass.encoded_TD.defined()) {
    // One view for both projections, so that their gradients are added up before those of other
    // blocks are: as in recomputation, bit for bit.
    const at::Tensor encoded_TD = pass.encoded_TD.view(pass.encoded_TD.sizes());
    of_encoder =
        cross_attention_->Project(encoded_TD, pass.row_ids_B.numel(), pass.encoder_positions);
    if (cache != nullptr) {
      cache->encoder_keys[index_] = of_encoder.keys_BHLC;
      cache->encoder_values[index_] = of_encoder.values_BHLC;
    }
  } else {
    of_encoder = {cache->encoder_keys[index_], cache->encoder_values[index_]};
  }
  AttentionBias bias;
  bias.allowed_BL = pass.attention_mask_BE;
  bias.for_gradients = pass.mode.training;
  return cross_attention_->Attend(x_TD, of_encoder, bias, pass.positions,
                                  DropoutOf("cross-attention probabilities", pass));
}

AttentionDropout SwitchBlock::DropoutOf(const char* what, const SwitchPass& pass) const {
  AttentionDropout dropout;
  dropout.probability = pass.mode.training ? config_.dropout() : 0.0;
  dropout.key = pass.mode.key.Derive(static_cast<uint64_t>(block_)).Derive(what);
  dropout.row_ids_B = pass.row_ids_B;
  return dropout;
}

at::Tensor SwitchBlock::Add(const at::Tensor& x_TD, const at::Tensor& y_TD, const char* what,
                            const SwitchPass& pass) const {
  const AttentionDropout dropout = DropoutOf(what, pass);
  return x_TD + KeyedDropout(y_TD, dropout.probability, dropout.key, dropout.row_ids_B);
}

}  // namespace hypermoe
