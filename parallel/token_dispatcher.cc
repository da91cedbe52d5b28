#include "parallel/token_dispatcher.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/expert_order.h"
#include "kernels/select_rows.h"
#include "parallel/expert_gather.h"
#include "parallel/row_moves.h"

namespace hypermoe {
namespace {

// The sent tokens by expert, then all others: as if those had chosen one more.
ExpertOrder OrderSent(const at::Tensor& expert_ids_T, const at::Tensor& sent_T,
                      int64_t num_experts) {
  TORCH_CHECK(sent_T.scalar_type() == at::kBool && sent_T.sizes() == expert_ids_T.sizes(),
              "tokens to send have shape ", sent_T.sizes(), " and dtype ", sent_T.scalar_type(),
              ", expected ", expert_ids_T.numel(), " of bool");
  return OrderByExpert(expert_ids_T.masked_fill(sent_T.logical_not(), num_experts),
                       num_experts + 1);
}

// From the counts that the host has read: fills rows_per_expert, num_sent and sent_K, and returns
// how many of each expert's tokens are sent.
std::vector<int64_t> TakeCounts(PlanUnderWay& under_way, int64_t num_experts, DispatchPlan& plan) {
  const int64_t* of_expert = under_way.counts.Wait().const_data_ptr<int64_t>();
  const int64_t outside = of_expert[num_experts];
  TORCH_CHECK(outside == 0, outside, " of ", plan.num_tokens, " expert ids are outside [0, ",
              num_experts, ")");
  plan.rows_per_expert.assign(of_expert, of_expert + num_experts);
  plan.num_sent = plan.num_tokens;
  if (!under_way.sent_first_T.defined()) return plan.rows_per_expert;
  const int64_t* sent_of_expert = of_expert + num_experts + 2;
  plan.num_sent = std::accumulate(sent_of_expert, sent_of_expert + num_experts, int64_t{0});
  if (plan.num_sent < plan.num_tokens) {
    plan.sent_K =
        at::index_select(plan.inverse_T, 0, under_way.sent_first_T.narrow(0, 0, plan.num_sent));
  }
  return {sent_of_expert, sent_of_expert + num_experts};
}

// From rows_arriving[p][j], the rows that rank p sends to local expert j (each p in a row of
// `stride` numbers): fills recv_rows, rows_per_local_expert, num_received and blocks.
void PlanArrival(const at::Tensor& counts, int64_t stride, int64_t num_local, DispatchPlan& plan) {
  const int64_t* rows_arriving = counts.const_data_ptr<int64_t>();
  const int64_t num_ranks = counts.numel() / std::max<int64_t>(stride, 1);
  plan.recv_rows.assign(num_ranks, 0);
  plan.rows_per_local_expert.assign(num_local, 0);
  std::vector<RowBlock> blocks;  // in order of arrival
  for (int64_t p = 0; p < num_ranks; ++p) {
    for (int64_t j = 0; j < num_local; ++j) {
      const int64_t rows = rows_arriving[p * stride + j];
      blocks.push_back({plan.num_received, 0, rows});
      plan.recv_rows[p] += rows;
      plan.rows_per_local_expert[j] += rows;
      plan.num_received += rows;
    }
  }
  bool in_place = true;
  int64_t placed = 0;
  for (int64_t j = 0; j < num_local; ++j) {
    for (int64_t p = 0; p < num_ranks; ++p) {
      RowBlock& block = blocks[p * num_local + j];
      block.placed = placed;
      placed += block.rows;
      in_place = in_place && (block.rows == 0 || block.placed == block.arrived);
    }
  }
  if (!in_place) plan.blocks = std::move(blocks);
}

}  // namespace

TokenDispatcher::TokenDispatcher(std::shared_ptr<Communicator> expert, int64_t num_experts)
    : expert_(std::move(expert)),
      num_experts_(num_experts),
      local_experts_(ExpertsOfRank(num_experts, expert_->size(), expert_->rank())) {
  TORCH_CHECK(num_experts >= 1, "the number of experts is ", num_experts, ", expected at least 1");
}

at::Tensor TokenDispatcher::GatherFromOwners(const at::Tensor& own_eX) const {
  return GatherExperts(own_eX, expert_, num_experts_);
}

std::shared_ptr<const DispatchPlan> TokenDispatcher::MakePlan(const at::Tensor& expert_ids_T,
                                                              const at::Tensor& sent_T) const {
  const std::shared_ptr<DispatchPlan> plan = StartPlan(expert_ids_T, sent_T);
  FinishPlan(*plan);
  return plan;
}

std::shared_ptr<DispatchPlan> TokenDispatcher::StartPlan(const at::Tensor& expert_ids_T,
                                                         const at::Tensor& sent_T) const {
  const ExpertOrder order = OrderByExpert(expert_ids_T, num_experts_);
  auto plan = std::make_shared<DispatchPlan>();
  plan->num_tokens = expert_ids_T.numel();
  plan->order_T = order.order_C;
  plan->inverse_T = order.inverse_C;
  at::Tensor counts = order.counts, sent_first_T;
  if (sent_T.defined()) {
    const ExpertOrder sent = OrderSent(expert_ids_T, sent_T, num_experts_);
    counts = at::cat({counts, sent.counts});
    sent_first_T = sent.order_C;
  }
  plan->under_way =
      std::make_unique<PlanUnderWay>(PlanUnderWay{HostRead(counts), sent_first_T, {}});
  // A GPU is given the permutation before the host waits for its counts.
  if (expert_ids_T.is_cpu()) {
    plan->sorted = order.counts.const_data_ptr<int64_t>()[num_experts_ + 1] == 0;
    StartCounts(*plan);
  }
  return plan;
}

void TokenDispatcher::StartCounts(DispatchPlan& plan) const {
  const std::vector<int64_t> sent_per_expert = TakeCounts(*plan.under_way, num_experts_, plan);
  // Equal parts for the exchange of counts: the first rank holds the most experts.
  const int64_t stride = ExpertsOfRank(num_experts_, expert_->size(), 0).size();
  std::vector<int64_t> rows_leaving(stride * expert_->size(), 0);
  for (int p = 0; p < expert_->size(); ++p) {
    const ExpertRange experts = ExpertsOfRank(num_experts_, expert_->size(), p);
    const auto begin = sent_per_expert.begin() + experts.begin;
    std::copy_n(begin, experts.size(), rows_leaving.begin() + p * stride);
    plan.send_rows.push_back(std::accumulate(begin, begin + experts.size(), int64_t{0}));
  }
  plan.under_way->arriving = expert_->StartAllToAllCounts(rows_leaving);
}

void TokenDispatcher::FinishPlan(DispatchPlan& plan) const {
  if (plan.under_way == nullptr) return;
  StartedExchange& arriving = plan.under_way->arriving;
  if (arriving.pending == nullptr) StartCounts(plan);
  arriving.pending->Wait();
  const int64_t stride = ExpertsOfRank(num_experts_, expert_->size(), 0).size();
  PlanArrival(arriving.received, stride, local_experts_.size(), plan);
  plan.under_way = nullptr;
}

at::Tensor TokenDispatcher::Permute(const at::Tensor& x_TD,
                                    const std::shared_ptr<const DispatchPlan>& plan) const {
  return PermuteRows(x_TD, plan);
}

at::Tensor TokenDispatcher::Unpermute(const at::Tensor& sorted_TD,
                                      const std::shared_ptr<const DispatchPlan>& plan) const {
  return UnpermuteRows(sorted_TD, plan);
}

at::Tensor TokenDispatcher::Select(const at::Tensor& sorted_TD,
                                   const std::shared_ptr<const DispatchPlan>& plan) const {
  return plan->sent_K.defined() ? SelectRows(sorted_TD, plan->sent_K) : sorted_TD;
}

at::Tensor TokenDispatcher::Restore(const at::Tensor& sent_KD,
                                    const std::shared_ptr<const DispatchPlan>& plan) const {
  if (!plan->sent_K.defined()) return sent_KD;
  std::vector<int64_t> shape = sent_KD.sizes().vec();
  shape[0] = plan->num_tokens;
  return at::index_copy(at::zeros(shape, sent_KD.options()), 0, plan->sent_K, sent_KD);
}

at::Tensor TokenDispatcher::Dispatch(const at::Tensor& sent_KD,
                                     const std::shared_ptr<const DispatchPlan>& plan,
                                     const at::Tensor& known) const {
  return FinishDispatch(StartDispatch(sent_KD, plan, known));
}

RowsUnderWay TokenDispatcher::StartDispatch(const at::Tensor& sent_KD,
                                            const std::shared_ptr<const DispatchPlan>& plan,
                                            const at::Tensor& known) const {
  return StartRows(/*dispatch=*/true, sent_KD, plan, expert_, known);
}

at::Tensor TokenDispatcher::FinishDispatch(RowsUnderWay rows) const {
  return FinishRows(std::move(rows));
}

at::Tensor TokenDispatcher::Combine(const at::Tensor& rows_RD,
                                    const std::shared_ptr<const DispatchPlan>& plan,
                                    const at::Tensor& known) const {
  return FinishRows(StartRows(/*dispatch=*/false, rows_RD, plan, expert_, known));
}

}  // namespace hypermoe
