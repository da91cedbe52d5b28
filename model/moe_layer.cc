#include "model/moe_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>

#include <cmath>

namespace hypermoe {

double ResidualInitStd(const ModelConfig& config) {
  return config.init_std() / std::sqrt(2.0 * config.num_layers());
}

MoeLayer::MoeLayer(const std::string& prefix, const ModelConfig& config, const SparseParts& parts,
                   ParameterFactory& factory)
    : router_(prefix + "router.", config.hidden_size(), config.num_experts(), config.init_std(),
              factory),
      side_(prefix, config, parts.adapter_width, factory),
      parts_(parts) {
  const int64_t width = config.hidden_size(), inner = config.ffn_size();
  const ExpertRange local = parts_.dispatcher->local_experts();
  const std::string expert = prefix + "experts.expert_{e}.";
  experts_.up_GDF = factory.MakeExperts(expert + "c_fc.weight", local, {width, inner},
                                        Init::Normal(config.init_std()));
  experts_.up_GF = factory.MakeExperts(expert + "c_fc.bias", local, {inner}, Init::Constant(0));
  experts_.down_GFD = factory.MakeExperts(expert + "c_proj.weight", local, {inner, width},
                                          Init::Normal(ResidualInitStd(config)));
  experts_.down_GD = factory.MakeExperts(expert + "c_proj.bias", local, {width}, Init::Constant(0));
}

at::Tensor MoeLayer::Forward(const at::Tensor& x_TD, const RouterNoise& noise,
                             std::vector<RoutingResult>* routing) {
  TokenDispatcher& dispatcher = *parts_.dispatcher;
  const RoutingResult decision = router_.Forward(x_TD, noise);
  routing->push_back(decision);
  const Plan plan = dispatcher.MakePlan(decision.expert_ids_T);
  const at::Tensor sorted_TD = dispatcher.Permute(x_TD, plan);
  const at::Tensor gate_T1 = dispatcher.Permute(decision.gate_T.unsqueeze(1), plan);
  const bool at_owner = parts_.hyper != nullptr && parts_.hyper->at_owner();
  const at::Tensor y_TD = dispatcher.Unpermute(
      at_owner ? AtOwner(sorted_TD, gate_T1, plan) : AtSource(sorted_TD, gate_T1, plan), plan);
  const at::Tensor side_TD = side_.Forward(x_TD);
  return side_TD.defined() ? y_TD + side_TD : y_TD;
}

// The gate, and the HyperExpert if there is one, act on the token's own rank.
at::Tensor MoeLayer::AtSource(const at::Tensor& sorted_TD, const at::Tensor& gate_T1,
                              const Plan& plan) {
  const at::Tensor rows_RD = parts_.dispatcher->Dispatch(sorted_TD, plan);
  const at::Tensor expert_TD = parts_.dispatcher->Combine(RunExperts(rows_RD, plan), plan);
  if (parts_.hyper == nullptr) return at::mul(expert_TD, gate_T1);
  const at::Tensor hyper_TD =
      parts_.hyper->Apply(sorted_TD, plan->rows_per_expert, parts_.sparse_index);
  return at::addcmul(hyper_TD, expert_TD, gate_T1);
}

// Both act where the selected expert is. The gate travels as one more column of the row, and its
// gradient comes back so.
at::Tensor MoeLayer::AtOwner(const at::Tensor& sorted_TD, const at::Tensor& gate_T1,
                             const Plan& plan) {
  const int64_t width = sorted_TD.size(1);
  const at::Tensor received = parts_.dispatcher->Dispatch(at::cat({sorted_TD, gate_T1}, 1), plan);
  const at::Tensor rows_RD = received.narrow(1, 0, width).contiguous();
  const at::Tensor gate_R1 = received.narrow(1, width, 1);
  const at::Tensor hyper_RD =
      parts_.hyper->Apply(rows_RD, plan->rows_per_local_expert, parts_.sparse_index);
  const at::Tensor y_RD = at::addcmul(hyper_RD, RunExperts(rows_RD, plan), gate_R1);
  return parts_.dispatcher->Combine(y_RD, plan);
}

at::Tensor MoeLayer::RunExperts(const at::Tensor& rows_RD, const Plan& plan) const {
  return GroupedFfn(rows_RD, plan->rows_per_local_expert, experts_, Activation::kGeluTanh);
}

}  // namespace hypermoe
