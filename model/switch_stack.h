// The encoder or the decoder of T5 and Switch Transformer: dropout, blocks that share a table of
// relative positions, norm, dropout.
//
// Legend: T tokens, D width, H heads, S positions, L positions attended to.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "configs/run.pb.h"
#include "model/config_values.h"
#include "model/parameter_factory.h"
#include "model/sparse_blocks.h"
#include "model/switch_block.h"

namespace hypermoe {

class SwitchStack {
 public:
  // Parameters: those of its blocks, {encoder|decoder}.block.0.layer.0.SelfAttention.
  // relative_attention_bias.weight [relative_buckets, H] and {encoder|decoder}.final_layer_norm.
  // weight.
  SwitchStack(const ModelConfig& config, Stack stack, const SparseBlocks& sparse,
              ParameterFactory& factory);

  // x_TD: embedded tokens, whose precision the result has. pass.bias_HSL is not looked at. Appends
  // the decisions of its sparse blocks.
  at::Tensor Forward(const at::Tensor& x_TD, SwitchPass pass,
                     std::vector<RoutingResult>* routing) const;

 private:
  at::Tensor BiasOf(const SwitchPass& pass) const;
  at::Tensor Dropout(const at::Tensor& x_TD, const char* what, const SwitchPass& pass) const;

  ModelConfig config_;
  Stack stack_;
  at::Tensor relative_bias_;  // [relative_buckets, H]
  std::vector<std::unique_ptr<SwitchBlock>> blocks_;
  at::Tensor final_norm_D_;
};

}  // namespace hypermoe
