// One block of GPT-2: x += attention(norm(x)); x += feed_forward(norm(x)), the latter dense or a
// mixture of experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "model/feed_forward.h"
#include "model/language_model.h"
#include "model/moe_layer.h"
#include "model/parameter_factory.h"

namespace hypermoe {

class TransformerBlock {
 public:
  // Parameters: h.{layer}.ln_1|ln_2.weight|bias, .attn.c_attn|c_proj.weight|bias, .mlp.*.
  // `sparse` is null for a dense block.
  TransformerBlock(const ModelConfig& config, int64_t layer, const SparseParts* sparse,
                   ParameterFactory& factory);

  // x_TD holds the tokens of row_ids_B's rows, row by row; the result has its precision. `record`:
  // see MoePass; unused in a dense block.
  at::Tensor Forward(const at::Tensor& x_TD, const at::Tensor& row_ids_B, const ForwardMode& mode,
                     std::vector<RoutingResult>* routing, MoeRecord* record = nullptr);

 private:
  at::Tensor Attention(const at::Tensor& x_TD, const at::Tensor& row_ids_B,
                       const ForwardMode& mode);

  ModelConfig config_;
  int64_t layer_;
  at::Tensor ln_1_weight_, ln_1_bias_, ln_2_weight_, ln_2_bias_;
  at::Tensor c_attn_weight_, c_attn_bias_, attn_proj_weight_, attn_proj_bias_;
  std::optional<FeedForward> feed_forward_;
};

}  // namespace hypermoe
