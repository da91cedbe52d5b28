// A sparse feed-forward sub-layer: router, experts behind a token dispatcher, and what its kind
// adds to the selected expert: the HyperExpert, a shared expert or an adapter.
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
#include "model/side_network.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

// What sparse layers share, and which of them one is.
struct SparseParts {
  std::shared_ptr<TokenDispatcher> dispatcher;
  HyperNetwork* hyper = nullptr;  // kind hyper; outlives the layers
  int64_t sparse_index = 0;       // the layer's index in `hyper`
  int64_t adapter_width = 0;      // kind adapter
};

class MoeLayer {
 public:
  // prefix: "h.3.mlp.". Parameters: prefix + router.w_gate,
  // experts.expert_{e}.c_fc|c_proj.weight|bias and those of SideNetwork.
  MoeLayer(const std::string& prefix, const ModelConfig& config, const SparseParts& parts,
           ParameterFactory& factory);

  // y_TD = gate * expert(x) + what the kind adds (HyperExpert(x): Eq. 9). Appends the routing
  // decision to `routing`. Collective over the expert group, in backward too, with zero tokens too.
  at::Tensor Forward(const at::Tensor& x_TD, const RouterNoise& noise,
                     std::vector<RoutingResult>* routing);

 private:
  using Plan = std::shared_ptr<const DispatchPlan>;
  at::Tensor AtSource(const at::Tensor& sorted_TD, const at::Tensor& gate_T1, const Plan& plan);
  at::Tensor AtOwner(const at::Tensor& sorted_TD, const at::Tensor& gate_T1, const Plan& plan);
  at::Tensor RunExperts(const at::Tensor& rows_RD, const Plan& plan) const;

  Router router_;
  GroupedFfnWeights experts_;  // stacked over the experts held here
  SideNetwork side_;
  SparseParts parts_;
};

// Initial standard deviation of projections back into the residual stream (GPT-2): init_std /
// sqrt(2 num_layers).
double ResidualInitStd(const ModelConfig& config);

}  // namespace hypermoe
