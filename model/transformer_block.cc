#include "model/transformer_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include "kernels/causal_attention.h"
#include "kernels/keyed_dropout.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "model/config_values.h"
#include "model/ffn_parameters.h"

namespace hypermoe {

TransformerBlock::TransformerBlock(const ModelConfig& config, int64_t layer,
                                   const SparseParts* sparse, ParameterFactory& factory)
    : config_(config), layer_(layer) {
  const int64_t width = config.hidden_size();
  const std::string prefix = "h." + std::to_string(layer) + ".";
  const Init weight = Init::Normal(config.init_std()),
             residual = Init::Normal(ResidualInitStd(config)), zero = Init::Constant(0),
             one = Init::Constant(1);
  ln_1_weight_ = factory.Make(prefix + "ln_1.weight", {width}, one);
  ln_1_bias_ = factory.Make(prefix + "ln_1.bias", {width}, zero);
  c_attn_weight_ = factory.Make(prefix + "attn.c_attn.weight", {width, 3 * width}, weight);
  c_attn_bias_ = factory.Make(prefix + "attn.c_attn.bias", {3 * width}, zero);
  attn_proj_weight_ = factory.Make(prefix + "attn.c_proj.weight", {width, width}, residual);
  attn_proj_bias_ = factory.Make(prefix + "attn.c_proj.bias", {width}, zero);
  ln_2_weight_ = factory.Make(prefix + "ln_2.weight", {width}, one);
  ln_2_bias_ = factory.Make(prefix + "ln_2.bias", {width}, zero);
  feed_forward_.emplace(FeedForwardPrefix(config, layer), config, layer, sparse, factory);
}

at::Tensor TransformerBlock::Forward(const at::Tensor& x_TD, const at::Tensor& row_ids_B,
                                     const ForwardMode& mode, std::vector<RoutingResult>* routing,
                                     MoeRecord* record) {
  const double epsilon = config_.layer_norm_epsilon();
  const double dropout = mode.training ? config_.dropout() : 0.0;
  const RandomKey key = mode.key.Derive(static_cast<uint64_t>(layer_));

  const at::Tensor attention_TD =
      Attention(LayerNorm(x_TD, ln_1_weight_, ln_1_bias_, epsilon), row_ids_B, mode);
  const at::Tensor middle_TD =
      x_TD + KeyedDropout(attention_TD, dropout, key.Derive("attention output"), row_ids_B);
  const at::Tensor ffn_TD = feed_forward_->Forward(
      LayerNorm(middle_TD, ln_2_weight_, ln_2_bias_, epsilon), row_ids_B, mode, routing, record);
  return middle_TD + KeyedDropout(ffn_TD, dropout, key.Derive("feed-forward output"), row_ids_B);
}

at::Tensor TransformerBlock::Attention(const at::Tensor& x_TD, const at::Tensor& row_ids_B,
                                       const ForwardMode& mode) {
  const int64_t rows = row_ids_B.numel(), heads = config_.num_heads(),
                width = config_.hidden_size();
  const int64_t positions = rows == 0 ? 0 : x_TD.size(0) / rows;
  const at::Tensor qkv_TE = Linear(x_TD, c_attn_weight_, c_attn_bias_);
  const auto qkv =
      qkv_TE.view({rows, positions, 3, heads, width / heads}).permute({2, 0, 3, 1, 4}).unbind(0);
  at::Tensor keys = qkv[1], values = qkv[2];
  if (mode.cache != nullptr) {
    at::Tensor &cached_keys = mode.cache->keys[static_cast<size_t>(layer_)],
               &cached_values = mode.cache->values[static_cast<size_t>(layer_)];
    if (cached_keys.defined()) {
      keys = at::cat({cached_keys, keys}, 2);
      values = at::cat({cached_values, values}, 2);
    }
    cached_keys = keys;
    cached_values = values;
  }
  AttentionDropout dropout;
  dropout.probability = mode.training ? AttentionDropoutOf(config_) : 0.0;
  dropout.key = mode.key.Derive(static_cast<uint64_t>(layer_)).Derive("attention probabilities");
  dropout.row_ids_B = row_ids_B;
  const at::Tensor attended_BHSC = CausalAttention(qkv[0], keys, values, dropout);
  return Linear(attended_BHSC.transpose(1, 2).reshape({x_TD.size(0), width}), attn_proj_weight_,
                attn_proj_bias_);
}

}  // namespace hypermoe
