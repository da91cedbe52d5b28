// Makes the parameters of feed-forward networks and of routers, under the names and with the
// initial values of the model's family:
//   gpt2                 c_fc|c_proj.weight [in, out], .bias; N(0, init_std), the second matrix
//                        init_std / sqrt(2 num_layers), biases 0
//   switch_transformers  wi|wo.weight, named [out, in], no biases; initializer_factor times
//                        N(0, D^-1/2) and N(0, F^-1/2), the latter of experts N(0, D^-1/2) too
//
// Legend: D width, F inner width, N experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "configs/run.pb.h"
#include "kernels/grouped_ffn.h"
#include "model/parameter_factory.h"

namespace hypermoe {

// A dense network, without the axis of groups. prefix: "h.3.mlp.".
GroupedFfnWeights MakeDenseFfn(const std::string& prefix, const ModelConfig& config,
                               ParameterFactory& factory);
// The experts held here: prefix + "experts.expert_{e}.".
GroupedFfnWeights MakeExpertFfns(const std::string& prefix, const ModelConfig& config,
                                 ExpertRange local, ParameterFactory& factory);
// One more network of an expert's size: prefix + "shared_expert.". Its second matrix starts at
// zero, so that training starts from the plain mixture of experts.
GroupedFfnWeights MakeSharedFfn(const std::string& prefix, const ModelConfig& config,
                                ParameterFactory& factory);
// Before the names of a block's feed-forward sub-layer, counted through the whole model:
// "h.3.mlp.", "decoder.block.1.layer.2.mlp.".
std::string FeedForwardPrefix(const ModelConfig& config, int64_t block);

// The names of an expert's matrices, and whether they are named transposed (parallel/parameter.h).
struct ExpertMatrices {
  std::string up, down;
  bool named_transposed;
};
ExpertMatrices NamesOfExpert(const ModelConfig& config, int64_t block, int64_t expert);

// A router's matrix [D,N]: prefix + "w_gate"; in switch_transformers "classifier.weight", named
// [N,D], N(0, 1) times initializer_factor. prefix: "h.3.mlp.router.".
at::Tensor MakeRouterMatrix(const std::string& prefix, const ModelConfig& config,
                            ParameterFactory& factory);
// What is added to its logits, [N]: prefix + "classifier.bias", which starts at zero; undefined
// without model.router_bias, which switch_transformers alone have.
at::Tensor MakeRouterBias(const std::string& prefix, const ModelConfig& config,
                          ParameterFactory& factory);

}  // namespace hypermoe
