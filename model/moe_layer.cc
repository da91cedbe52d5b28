#include "model/moe_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "model/expert_capacity.h"
#include "model/gated_rows.h"

namespace hypermoe {
namespace {

// gate * expert, multiplied in the gate's precision.
at::Tensor Gated(const at::Tensor& expert_RD, const at::Tensor& gate_R1) {
  return at::mul(expert_RD, gate_R1).to(expert_RD.scalar_type());
}

// hyper + gate * expert, in the gate's precision.
at::Tensor AddGated(const at::Tensor& hyper_RD, const at::Tensor& expert_RD,
                    const at::Tensor& gate_R1) {
  const at::ScalarType precise = gate_R1.scalar_type();
  return at::addcmul(hyper_RD.to(precise), expert_RD.to(precise), gate_R1)
      .to(hyper_RD.scalar_type());
}

}  // namespace

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

at::Tensor MoeLayer::Forward(const at::Tensor& x_TD, const MoePass& pass,
                             std::vector<RoutingResult>* routing) {
  TokenDispatcher& dispatcher = *parts_.dispatcher;
  MoeRecord own_record;
  MoeRecord* record = pass.record != nullptr ? pass.record : &own_record;
  const RoutingResult decision = Route(x_TD, pass, record);
  routing->push_back(decision);
  const at::Tensor sorted_TD = dispatcher.Permute(x_TD, record->plan);
  const at::Tensor gate_T = AtOwner() && decision.taken_T.defined()
                                ? decision.gate_T * decision.taken_T
                                : decision.gate_T;
  const at::Tensor gate_T1 = dispatcher.Permute(gate_T.unsqueeze(1), record->plan);
  const at::Tensor y_TD =
      dispatcher.Unpermute(AtOwner() ? ApplyAtOwner(sorted_TD, gate_T1, record)
                                     : ApplyAtSource(sorted_TD, gate_T1, record),
                           record->plan);
  const at::Tensor side_TD = side_.Forward(x_TD);
  return side_TD.defined() ? y_TD + side_TD : y_TD;
}

// Chooses experts and makes the dispatch plan, or takes both from the record.
RoutingResult MoeLayer::Route(const at::Tensor& x_TD, const MoePass& pass,
                              MoeRecord* record) const {
  RoutingResult decision = router_.Forward(x_TD, pass.noise, record->expert_ids_T);
  if (record->plan == nullptr) {
    record->expert_ids_T = decision.expert_ids_T;
    record->taken_T = TokensTaken(decision.expert_ids_T, pass.num_rows,
                                  parts_.dispatcher->num_experts(), pass.capacity);
    // To the owner a token travels also if the expert has no room for it: the HyperExpert is there.
    record->plan = parts_.dispatcher->MakePlan(decision.expert_ids_T,
                                               AtOwner() ? at::Tensor() : record->taken_T);
  }
  decision.taken_T = record->taken_T;
  return decision;
}

at::Tensor MoeLayer::Dispatch(const at::Tensor& sent_KD, MoeRecord* record) const {
  const at::Tensor rows_RD = parts_.dispatcher->Dispatch(sent_KD, record->plan, record->received);
  if (parts_.dispatcher->exchanges()) record->received = rows_RD;
  return rows_RD;
}

at::Tensor MoeLayer::Combine(const at::Tensor& rows_RD, MoeRecord* record) const {
  const at::Tensor back_KD = parts_.dispatcher->Combine(rows_RD, record->plan, record->returned);
  if (parts_.dispatcher->exchanges()) record->returned = back_KD;
  return back_KD;
}

// The gate, and the HyperExpert if there is one, act on the token's own rank.
at::Tensor MoeLayer::ApplyAtSource(const at::Tensor& sorted_TD, const at::Tensor& gate_T1,
                                   MoeRecord* record) {
  const Plan& plan = record->plan;
  const at::Tensor rows_RD = Dispatch(parts_.dispatcher->Select(sorted_TD, plan), record);
  const at::Tensor back_KD = Combine(RunExperts(rows_RD, plan->rows_per_local_expert), record);
  const at::Tensor expert_TD = parts_.dispatcher->Restore(back_KD, plan);
  if (parts_.hyper == nullptr) return Gated(expert_TD, gate_T1);
  const at::Tensor hyper_TD =
      parts_.hyper->Apply(sorted_TD, plan->rows_per_expert, parts_.sparse_index);
  return AddGated(hyper_TD, expert_TD, gate_T1);
}

// Both act where the selected expert is. The gate travels with the row, 0 where the expert has no
// room, and its gradient comes back so.
at::Tensor MoeLayer::ApplyAtOwner(const at::Tensor& sorted_TD, const at::Tensor& gate_T1,
                                  MoeRecord* record) {
  const Plan& plan = record->plan;
  const auto [rows_RD, gate_R1] = DetachGate(Dispatch(AttachGate(sorted_TD, gate_T1), record),
                                             sorted_TD.size(1), gate_T1.scalar_type());
  const at::Tensor hyper_RD =
      parts_.hyper->Apply(rows_RD, plan->rows_per_local_expert, parts_.sparse_index);
  const at::Tensor expert_RD = record->taken_T.defined()
                                   ? RunExpertsWhereTaken(rows_RD, gate_R1, plan)
                                   : RunExperts(rows_RD, plan->rows_per_local_expert);
  return Combine(AddGated(hyper_RD, expert_RD, gate_R1), record);
}

at::Tensor MoeLayer::RunExperts(const at::Tensor& rows_RD,
                                const std::vector<int64_t>& rows_per_expert) const {
  return GroupedFfn(rows_RD, rows_per_expert, experts_, Activation::kGeluTanh);
}

// Zero where the gate is: the probability of a chosen expert is at least 1/N.
at::Tensor MoeLayer::RunExpertsWhereTaken(const at::Tensor& rows_RD, const at::Tensor& gate_R1,
                                          const Plan& plan) const {
  const at::Tensor taken_R = gate_R1.detach().squeeze(1).ne(0);
  std::vector<int64_t> taken_per_expert;
  for (const at::Tensor& expert_rows : taken_R.split_with_sizes(plan->rows_per_local_expert)) {
    taken_per_expert.push_back(expert_rows.sum().item<int64_t>());
  }
  const at::Tensor taken_K = taken_R.nonzero().squeeze(1);
  const at::Tensor expert_KD = RunExperts(at::index_select(rows_RD, 0, taken_K), taken_per_expert);
  return at::index_copy(at::zeros(rows_RD.sizes(), rows_RD.options()), 0, taken_K, expert_KD);
}

}  // namespace hypermoe
