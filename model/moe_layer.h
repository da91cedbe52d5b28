// A sparse feed-forward sub-layer: router, experts behind a token dispatcher, and (kind hyper) the
// HyperExpert.
//
// Legend: T tokens of this rank, D width, F inner width, N experts, e experts held here, R rows
// received here.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "kernels/grouped_ffn.h"
#include "model/hyper_network.h"
#include "model/parameter_factory.h"
#include "model/router.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

class MoeLayer {
 public:
  // prefix: "h.3.mlp.". Parameters: prefix + router.w_gate and
  // experts.expert_{e}.c_fc|c_proj.weight|bias. `hyper` (null for kind moe) outlives this;
  // sparse_index is this layer's index in it.
  MoeLayer(const std::string& prefix, const ModelConfig& config,
           std::shared_ptr<TokenDispatcher> dispatcher, HyperNetwork* hyper, int64_t sparse_index,
           ParameterFactory& factory);

  // y_TD = gate * expert(x) + HyperExpert(x) (Eq. 9). Appends the routing decision to `routing`.
  // Collective over the expert group, in backward too, with zero tokens too.
  at::Tensor Forward(const at::Tensor& x_TD, std::vector<RoutingResult>* routing);

 private:
  Router router_;
  GroupedFfnWeights experts_;  // stacked over the experts held here
  std::shared_ptr<TokenDispatcher> dispatcher_;
  HyperNetwork* hyper_;
  int64_t sparse_index_;
};

// Initial standard deviation of projections back into the residual stream (GPT-2): init_std /
// sqrt(2 num_layers).
double ResidualInitStd(const ModelConfig& config);

}  // namespace hypermoe
