#include "model/moe_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "kernels/combine_rows.h"
#include "kernels/host_read.h"
#include "kernels/select_rows.h"
#include "kernels/sum_of_squares.h"
#include "model/expert_capacity.h"
#include "model/ffn_parameters.h"
#include "model/gated_rows.h"

namespace hypermoe {
namespace {

// Where CombineRows finds the row of each choice.
at::Tensor PositionsOf(const DispatchPlan& plan) {
  return plan.sorted ? at::Tensor() : plan.inverse_T;
}

// Every token's row once for each of its choices: [T * K, D].
at::Tensor RowPerChoice(const at::Tensor& x_TD, int64_t top_k) {
  if (top_k == 1) return x_TD;
  const int64_t tokens = x_TD.size(0), width = x_TD.size(1);
  return x_TD.unsqueeze(1).expand({tokens, top_k, width}).reshape({tokens * top_k, width});
}

// Numbers of the choices, [T * K], that a mask within experts is keyed by: with one choice, of the
// tokens.
at::Tensor ChoiceIds(const at::Tensor& token_ids_T, int64_t top_k) {
  const at::Tensor choices_K = at::arange(top_k, token_ids_T.options());
  return (token_ids_T.unsqueeze(1) * top_k + choices_K).flatten();
}

// RoutingResult::squares_2 of outputs of experts [C,D], as CombineRows takes them, and HyperExperts
// [.,D] in any order.
at::Tensor SquaresOf(const at::Tensor& rows_CD, const at::Tensor& gate_TK,
                     const at::Tensor& position_C, const at::Tensor& hyper_TD) {
  const at::NoGradGuard no_grad;
  const auto squares = [](const at::Tensor& x_TD) {
    const bool narrow = x_TD.scalar_type() == at::kBFloat16;
    return SumOfSquares({(narrow ? x_TD.to(at::kFloat) : x_TD).contiguous()}, x_TD.device());
  };
  const at::Tensor experts_TD =
      CombineRows(rows_CD.detach(), gate_TK.detach(), position_C, {}, BaseOrder::kTokens);
  return at::cat({squares(experts_TD), squares(hyper_TD.detach())});
}

InnerDropout OfSharedExpert(InnerDropout dropout) {
  dropout.key = dropout.key.Derive("shared expert");
  return dropout;
}

}  // namespace

MoeLayer::MoeLayer(const std::string& prefix, const ModelConfig& config, const SparseParts& parts,
                   ParameterFactory& factory)
    : router_(prefix + "router.", config, factory),
      jitter_in_place_(config.router_jitter_in_place()),
      activation_(ActivationOf(config)),
      experts_(MakeExpertFfns(prefix, config, parts.dispatcher->local_experts(), factory)),
      side_(prefix, config, parts.adapter_width, factory),
      parts_(parts) {
  if (parts_.hyper != nullptr) parts_.hyper->SetExperts(parts_.sparse_index, experts_);
}

at::Tensor MoeLayer::Forward(const at::Tensor& x_TD, const MoePass& pass,
                             std::vector<RoutingResult>* routing) {
  if (jitter_in_place_ && pass.noise.jitter > 0 && x_TD.scalar_type() != at::kBFloat16) {
    MoePass jittered = pass;
    jittered.noise.jitter = 0;
    return Forward(Jittered(x_TD, pass.noise), jittered, routing);
  }
  MoeRecord own_record;
  MoeRecord* record = pass.record != nullptr ? pass.record : &own_record;
  const bool measure = pass.measure && record->plan == nullptr && parts_.hyper != nullptr;
  const RoutingResult decision = Route(x_TD, pass, record);
  routing->push_back(decision);
  at::Tensor* squares_2 = measure ? &routing->back().squares_2 : nullptr;
  return AtOwner() ? ApplyAtOwner(x_TD, decision, pass.dropout, record, squares_2)
                   : ApplyAtSource(x_TD, decision, pass.dropout, record, squares_2);
}

// Chooses experts and starts the dispatch plan, or takes both from the record.
RoutingResult MoeLayer::Route(const at::Tensor& x_TD, const MoePass& pass,
                              MoeRecord* record) const {
  RoutingResult decision = router_.Forward(x_TD, pass.noise, record->expert_ids_TK);
  if (record->plan == nullptr) {
    record->expert_ids_TK = decision.expert_ids_TK;
    record->taken_TK = ChoicesTaken(decision.expert_ids_TK, pass.num_rows,
                                    parts_.dispatcher->num_experts(), pass.capacity);
    record->plan = parts_.dispatcher->StartPlan(decision.expert_ids_TK.flatten(),
                                                ChoicesSent(record->taken_TK));
  }
  decision.taken_TK = record->taken_TK;
  decision.num_rows = pass.num_rows;
  decision.stack = parts_.stack;
  return decision;
}

// bool [C]; undefined: all. To the owner the first choice travels also if the expert has no room
// for it, for the HyperExpert is there.
at::Tensor MoeLayer::ChoicesSent(const at::Tensor& taken_TK) const {
  if (!taken_TK.defined()) return {};
  at::Tensor sent_TK = taken_TK.clone();
  if (AtOwner()) {
    // A token that skips its HyperExpert too has nothing to travel for.
    sent_TK.select(1, 0).logical_or_(
        parts_.hyper->skips_dropped() ? taken_TK.any(1) : at::ones_like(taken_TK.select(1, 0)));
  }
  return sent_TK.flatten();
}

RowsUnderWay MoeLayer::StartDispatch(const at::Tensor& sent_SD, MoeRecord* record) const {
  return parts_.dispatcher->StartDispatch(sent_SD, record->plan, record->received);
}

at::Tensor MoeLayer::FinishDispatch(RowsUnderWay rows, MoeRecord* record) const {
  const at::Tensor rows_RD = parts_.dispatcher->FinishDispatch(std::move(rows));
  if (parts_.dispatcher->exchanges()) record->received = rows_RD;
  return rows_RD;
}

at::Tensor MoeLayer::Combine(const at::Tensor& rows_RD, MoeRecord* record) const {
  const at::Tensor back_SD = parts_.dispatcher->Combine(rows_RD, record->plan, record->returned);
  if (parts_.dispatcher->exchanges()) record->returned = back_SD;
  return back_SD;
}

// What depends on gates and capacity of what a token's HyperExpert is multiplied by: [T,1];
// undefined: 1.
at::Tensor MoeLayer::HyperFactor(const RoutingResult& decision) const {
  at::Tensor factor_T1;
  if (parts_.hyper == nullptr) return factor_T1;
  if (parts_.hyper->scaled_by_gate()) factor_T1 = decision.gate_TK.sum(1, /*keepdim=*/true);
  if (!parts_.hyper->skips_dropped() || !decision.taken_TK.defined()) return factor_T1;
  const at::Tensor kept_T1 = decision.taken_TK.any(1, /*keepdim=*/true);
  return factor_T1.defined() ? factor_T1 * kept_T1 : kept_T1.to(decision.gate_TK.scalar_type());
}

// Undefined without HyperExperts. The rows return to their places with those of the experts if they
// are in expert order.
at::Tensor MoeLayer::HyperAtSource(const at::Tensor& x_TD, const at::Tensor& sorted_CD,
                                   const RoutingResult& decision,
                                   const std::shared_ptr<const DispatchPlan>& plan) const {
  if (parts_.hyper == nullptr) return {};
  const at::Tensor factor_T1 = HyperFactor(decision);
  if (!InExpertOrder(decision.gate_TK.size(1))) {
    return ScaleRows(parts_.hyper->Apply(x_TD, decision, parts_.sparse_index), factor_T1);
  }
  return ScaleRows(
      parts_.hyper->ApplyGrouped(sorted_CD, plan->rows_per_expert, parts_.sparse_index),
      factor_T1.defined() ? parts_.dispatcher->Permute(factor_T1, plan) : factor_T1);
}

// The gates, and the HyperExpert if there is one, act on the token's own rank. So does a shared
// expert or adapter. They are computed while the tokens are on their way to the experts, in
// backward while the gradients come back.
at::Tensor MoeLayer::ApplyAtSource(const at::Tensor& x_TD, const RoutingResult& decision,
                                   const InnerDropout& dropout, MoeRecord* record,
                                   at::Tensor* squares_2) const {
  const TokenDispatcher& dispatcher = *parts_.dispatcher;
  const std::shared_ptr<DispatchPlan>& plan = record->plan;
  const int64_t top_k = decision.gate_TK.size(1), width = x_TD.size(1);
  const at::Tensor sorted_CD = dispatcher.Permute(RowPerChoice(x_TD, top_k), plan);
  at::Tensor sent_CD = sorted_CD;
  if (dropout.probability > 0) {
    const at::Tensor numbers_CN = NumberColumns(ChoiceIds(dropout.token_ids_R, top_k), at::kFloat);
    sent_CD = AttachGates(sorted_CD, dispatcher.Permute(numbers_CN, plan));
  }
  dispatcher.FinishPlan(*plan);
  RowsUnderWay rows = StartDispatch(dispatcher.Select(sent_CD, plan), record);
  const at::Tensor hyper_TD = HyperAtSource(x_TD, sorted_CD, decision, plan);
  const at::Tensor side_TD = side_.Forward(x_TD, OfSharedExpert(dropout));
  at::Tensor rows_RD = FinishDispatch(std::move(rows), record);
  InnerDropout of_rows = dropout;
  if (dropout.probability > 0) {
    const GatedRows received = DetachGates(rows_RD, width, at::kFloat);
    rows_RD = received.rows_TD;
    of_rows.token_ids_R = NumbersOf(received.gates_TG);
  }
  const at::Tensor back_SD =
      Combine(RunExperts(rows_RD, plan->rows_per_local_expert, of_rows), record);
  const at::Tensor expert_CD = dispatcher.Restore(back_SD, plan);
  if (squares_2 != nullptr) {
    *squares_2 = SquaresOf(expert_CD, decision.gate_TK, PositionsOf(*plan), hyper_TD);
  }
  const at::Tensor y_TD = CombineRows(expert_CD, decision.gate_TK, PositionsOf(*plan), hyper_TD,
                                      InExpertOrder(top_k) ? BaseOrder::kRows : BaseOrder::kTokens);
  return side_TD.defined() ? y_TD + side_TD : y_TD;
}

// Both act where experts are: the HyperExpert with the first choice. What they need travels with
// the row, and its gradient comes back so: the gate, 0 where the expert has no room; the
// HyperExpert's factor; (K > 1) the number of its selection, -1 for other choices than the first;
// and with dropout in experts the choice's number. With several choices no rank sees what the
// experts together add to a token, so squares_2 is left as it is.
at::Tensor MoeLayer::ApplyAtOwner(const at::Tensor& x_TD, const RoutingResult& decision,
                                  const InnerDropout& dropout, MoeRecord* record,
                                  at::Tensor* squares_2) const {
  const TokenDispatcher& dispatcher = *parts_.dispatcher;
  const std::shared_ptr<DispatchPlan>& plan = record->plan;
  const int64_t tokens = x_TD.size(0), width = x_TD.size(1), top_k = decision.gate_TK.size(1);
  const at::Tensor gate_TK =
      decision.taken_TK.defined() ? decision.gate_TK * decision.taken_TK : decision.gate_TK;
  std::vector<at::Tensor> columns = {gate_TK.reshape({-1, 1})};
  const at::Tensor factor_T1 = HyperFactor(decision);
  if (factor_T1.defined()) columns.push_back(RowPerChoice(factor_T1, top_k));
  if (top_k > 1) {
    at::Tensor number_TK = at::full_like(gate_TK.detach(), -1);
    number_TK.select(1, 0).copy_(parts_.hyper->SelectionNumbers(decision.expert_ids_TK));
    columns.push_back(number_TK.view({-1, 1}));
  }
  const int64_t num_gates = static_cast<int64_t>(columns.size());
  if (dropout.probability > 0) {
    columns.push_back(NumberColumns(ChoiceIds(dropout.token_ids_R, top_k), gate_TK.scalar_type()));
  }
  const at::Tensor sorted_CD = dispatcher.Permute(RowPerChoice(x_TD, top_k), plan);
  const at::Tensor gates_CG =
      dispatcher.Permute(columns.size() == 1 ? columns[0] : at::cat(columns, 1), plan);
  dispatcher.FinishPlan(*plan);
  const at::Tensor sent_SD = dispatcher.Select(AttachGates(sorted_CD, gates_CG), plan);
  const auto [rows_RD, gates_RG] = DetachGates(
      FinishDispatch(StartDispatch(sent_SD, record), record), width, gates_CG.scalar_type());

  at::Tensor hyper_RD =
      top_k == 1
          ? parts_.hyper->ApplyGrouped(rows_RD, plan->rows_per_local_expert, parts_.sparse_index)
          : parts_.hyper->ApplySelections(rows_RD,
                                          gates_RG.detach().select(1, num_gates - 1).to(at::kLong),
                                          parts_.sparse_index);
  if (factor_T1.defined()) hyper_RD = ScaleRows(hyper_RD, gates_RG.narrow(1, 1, 1));
  const at::Tensor gate_R1 = gates_RG.narrow(1, 0, 1);
  InnerDropout of_rows = dropout;
  if (dropout.probability > 0) {
    of_rows.token_ids_R = NumbersOf(gates_RG.narrow(1, num_gates, gates_RG.size(1) - num_gates));
  }
  const at::Tensor expert_RD = record->taken_TK.defined()
                                   ? RunExpertsWhereTaken(rows_RD, gate_R1, *plan, of_rows)
                                   : RunExperts(rows_RD, plan->rows_per_local_expert, of_rows);
  if (squares_2 != nullptr && top_k == 1) *squares_2 = SquaresOf(expert_RD, gate_R1, {}, hyper_RD);
  const at::Tensor back_SD =
      Combine(CombineRows(expert_RD, gate_R1, {}, hyper_RD, BaseOrder::kTokens), record);
  const at::Tensor y_CD = dispatcher.Unpermute(dispatcher.Restore(back_SD, plan), plan);
  return top_k == 1 ? y_CD : y_CD.view({tokens, top_k, width}).sum(1);
}

at::Tensor MoeLayer::RunExperts(const at::Tensor& rows_RD,
                                const std::vector<int64_t>& rows_per_expert,
                                const InnerDropout& dropout) const {
  return GroupedFfn(rows_RD, rows_per_expert, experts_, activation_, dropout);
}

// Zero where the gate is: that of an expert which has room is not, or adds nothing.
at::Tensor MoeLayer::RunExpertsWhereTaken(const at::Tensor& rows_RD, const at::Tensor& gate_R1,
                                          const DispatchPlan& plan,
                                          const InnerDropout& dropout) const {
  HostRead read(gate_R1.detach().squeeze(1).ne(0));
  const at::Tensor& taken_R = read.Wait();
  std::vector<int64_t> taken_per_expert;
  for (const at::Tensor& expert_rows : taken_R.split_with_sizes(plan.rows_per_local_expert)) {
    taken_per_expert.push_back(expert_rows.sum().item<int64_t>());
  }
  const at::Tensor taken_S = taken_R.nonzero().squeeze(1).to(rows_RD.device());
  InnerDropout of_taken = dropout;
  if (dropout.probability > 0) of_taken.token_ids_R = dropout.token_ids_R.index_select(0, taken_S);
  const at::Tensor expert_SD = RunExperts(SelectRows(rows_RD, taken_S), taken_per_expert, of_taken);
  return at::index_copy(at::zeros(rows_RD.sizes(), rows_RD.options()), 0, taken_S, expert_SD);
}

}  // namespace hypermoe
