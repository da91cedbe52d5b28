// One block of T5 and Switch Transformer: x += self_attention(norm(x)); in the decoder x +=
// cross_attention(norm(x), encoder's output); x += feed_forward(norm(x)), the latter dense or a
// mixture of experts.
//
// Legend: B rows, T tokens of them, row by row, D width, H heads, S positions, L positions attended
// to, E positions of the encoder.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "configs/run.pb.h"
#include "model/feed_forward.h"
#include "model/language_model.h"
#include "model/moe_layer.h"
#include "model/parameter_factory.h"
#include "model/switch_attention.h"

namespace hypermoe {

// What a pass over the blocks of a stack depends on beside what goes through them.
struct SwitchPass {
  ForwardMode mode;
  at::Tensor row_ids_B;
  int64_t positions = 0;          // S
  int64_t encoder_positions = 0;  // E
  at::Tensor bias_HSL;            // of relative positions
  at::Tensor encoded_TD;          // the encoder's output; undefined in it, and where a cache has it
  at::Tensor attention_mask_BE;   // bool: where the encoder's positions may be attended to;
                                  // undefined: everywhere
};

class SwitchBlock {
 public:
  // `block` counts through both stacks. Parameters: {encoder|decoder}.block.{i}.layer.0.
  // SelfAttention.*, layer.1.EncDecAttention.* in the decoder, and mlp.* in the last layer; each
  // layer has a layer_norm.weight. `sparse` is null for a dense block.
  SwitchBlock(const ModelConfig& config, int64_t block, const SparseParts* sparse,
              ParameterFactory& factory);

  // The result has the precision of x_TD. `record`: see MoePass; unused in a dense block.
  at::Tensor Forward(const at::Tensor& x_TD, const SwitchPass& pass,
                     std::vector<RoutingResult>* routing, MoeRecord* record) const;

 private:
  bool InDecoder() const { return cross_attention_.has_value(); }
  at::Tensor SelfAttention(const at::Tensor& x_TD, const SwitchPass& pass) const;
  at::Tensor CrossAttention(const at::Tensor& x_TD, const SwitchPass& pass) const;
  AttentionDropout DropoutOf(const char* what, const SwitchPass& pass) const;
  // x_TD + dropout(y_TD).
  at::Tensor Add(const at::Tensor& x_TD, const at::Tensor& y_TD, const char* what,
                 const SwitchPass& pass) const;

  ModelConfig config_;
  int64_t block_;
  size_t index_;  // in its stack
  at::Tensor self_norm_D_, cross_norm_D_, feed_forward_norm_D_;
  std::optional<SwitchAttention> self_attention_, cross_attention_;
  std::optional<FeedForward> feed_forward_;
};

}  // namespace hypermoe
