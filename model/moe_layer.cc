#include "model/moe_layer.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mul.h>

#include <cmath>

namespace hypermoe {

double ResidualInitStd(const ModelConfig& config) {
  return config.init_std() / std::sqrt(2.0 * config.num_layers());
}

MoeLayer::MoeLayer(const std::string& prefix, const ModelConfig& config,
                   std::shared_ptr<TokenDispatcher> dispatcher, HyperNetwork* hyper,
                   int64_t sparse_index, ParameterFactory& factory)
    : router_(prefix + "router.", config.hidden_size(), config.num_experts(), config.init_std(),
              factory),
      dispatcher_(std::move(dispatcher)),
      hyper_(hyper),
      sparse_index_(sparse_index) {
  const int64_t width = config.hidden_size(), inner = config.ffn_size();
  const ExpertRange local = dispatcher_->local_experts();
  const std::string expert = prefix + "experts.expert_{e}.";
  experts_.up_GDF = factory.MakeExperts(expert + "c_fc.weight", local, {width, inner},
                                        Init::Normal(config.init_std()));
  experts_.up_GF = factory.MakeExperts(expert + "c_fc.bias", local, {inner}, Init::Constant(0));
  experts_.down_GFD = factory.MakeExperts(expert + "c_proj.weight", local, {inner, width},
                                          Init::Normal(ResidualInitStd(config)));
  experts_.down_GD = factory.MakeExperts(expert + "c_proj.bias", local, {width}, Init::Constant(0));
}

at::Tensor MoeLayer::Forward(const at::Tensor& x_TD, std::vector<RoutingResult>* routing) {
  const RoutingResult decision = router_.Forward(x_TD);
  const auto plan = dispatcher_->MakePlan(decision.expert_ids_T);
  const at::Tensor sorted_TD = dispatcher_->Permute(x_TD, plan);

  const at::Tensor rows_RD = dispatcher_->Dispatch(sorted_TD, plan);
  const at::Tensor outputs_RD =
      GroupedFfn(rows_RD, plan->rows_per_local_expert, experts_, Activation::kGeluTanh);
  const at::Tensor expert_TD = dispatcher_->Combine(outputs_RD, plan);

  const at::Tensor gate_T1 = dispatcher_->Permute(decision.gate_T.unsqueeze(1), plan);
  at::Tensor y_TD;
  if (hyper_ == nullptr) {
    y_TD = at::mul(expert_TD, gate_T1);
  } else {
    const at::Tensor hyper_TD = hyper_->Apply(sorted_TD, plan->rows_per_expert, sparse_index_);
    y_TD = at::addcmul(hyper_TD, expert_TD, gate_T1);
  }
  routing->push_back(decision);
  return dispatcher_->Unpermute(y_TD, plan);
}

}  // namespace hypermoe
