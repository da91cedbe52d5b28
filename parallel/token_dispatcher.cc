#include "parallel/token_dispatcher.h"

#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/expert_order.h"
#include "kernels/select_rows.h"
#include "parallel/row_moves.h"

namespace hypermoe {
namespace {

// Fills order_T, inverse_T, rows_per_expert and sorted. Of a GPU, the counts are all that the host
// waits for.
void SortTokens(const at::Tensor& expert_ids_T, int64_t num_experts, DispatchPlan& plan) {
  const ExpertOrder order = OrderByExpert(expert_ids_T, num_experts);
  const at::Tensor counts = order.counts.to(at::kCPU);
  const int64_t* of_expert = counts.const_data_ptr<int64_t>();
  const int64_t outside = of_expert[num_experts], descents = of_expert[num_experts + 1];
  TORCH_CHECK(outside == 0, outside, " of ", expert_ids_T.numel(), " expert ids are outside [0, ",
              num_experts, ")");
  plan.num_tokens = expert_ids_T.numel();
  plan.rows_per_expert.assign(of_expert, of_expert + num_experts);
  plan.sorted = descents == 0;
  plan.order_T = order.order_C;
  plan.inverse_T = order.inverse_C;
}

// From the tokens that are sent: fills sent_K and num_sent, and returns how many of each expert's
// they are.
std::vector<int64_t> SelectTokens(const at::Tensor& sent_T, DispatchPlan& plan) {
  plan.num_sent = plan.num_tokens;
  if (!sent_T.defined()) return plan.rows_per_expert;
  TORCH_CHECK(
      sent_T.scalar_type() == at::kBool && sent_T.dim() == 1 && sent_T.numel() == plan.num_tokens,
      "tokens to send have shape ", sent_T.sizes(), " and dtype ", sent_T.scalar_type(),
      ", expected ", plan.num_tokens, " of bool");
  const at::Tensor sorted_T = at::index_select(sent_T, 0, plan.order_T).to(at::kCPU);
  const bool* sent = sorted_T.const_data_ptr<bool>();
  std::vector<int64_t> positions, sent_per_expert;
  int64_t position = 0;
  for (const int64_t rows : plan.rows_per_expert) {
    const auto before = static_cast<int64_t>(positions.size());
    for (const int64_t end = position + rows; position < end; ++position) {
      if (sent[position]) positions.push_back(position);
    }
    sent_per_expert.push_back(static_cast<int64_t>(positions.size()) - before);
  }
  plan.num_sent = static_cast<int64_t>(positions.size());
  if (plan.num_sent < plan.num_tokens) {
    plan.sent_K = at::tensor(positions, at::kLong).to(plan.order_T.device());
  }
  return sent_per_expert;
}

// From rows_arriving[p][j], the rows that rank p sends to local expert j (each p in a row of
// `stride` numbers): fills recv_rows, rows_per_local_expert, num_received and blocks.
void PlanArrival(const std::vector<int64_t>& rows_arriving, int64_t stride, int64_t num_local,
                 DispatchPlan& plan) {
  const int64_t num_ranks =
      static_cast<int64_t>(rows_arriving.size()) / std::max<int64_t>(stride, 1);
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

std::shared_ptr<const DispatchPlan> TokenDispatcher::MakePlan(const at::Tensor& expert_ids_T,
                                                              const at::Tensor& sent_T) const {
  auto plan = std::make_shared<DispatchPlan>();
  SortTokens(expert_ids_T, num_experts_, *plan);
  const std::vector<int64_t> sent_per_expert = SelectTokens(sent_T, *plan);

  // Equal parts for the exchange of counts: the first rank holds the most experts.
  const int64_t stride = ExpertsOfRank(num_experts_, expert_->size(), 0).size();
  std::vector<int64_t> rows_leaving(stride * expert_->size(), 0);
  for (int p = 0; p < expert_->size(); ++p) {
    const ExpertRange experts = ExpertsOfRank(num_experts_, expert_->size(), p);
    const auto begin = sent_per_expert.begin() + experts.begin;
    std::copy_n(begin, experts.size(), rows_leaving.begin() + p * stride);
    plan->send_rows.push_back(std::accumulate(begin, begin + experts.size(), int64_t{0}));
  }
  PlanArrival(expert_->AllToAllCounts(rows_leaving), stride, local_experts_.size(), *plan);
  return plan;
}

at::Tensor TokenDispatcher::Permute(const at::Tensor& x_TD,
                                    const std::shared_ptr<const DispatchPlan>& plan) const {
  return MoveRows(RowMove::kPermute, x_TD, plan, expert_);
}

at::Tensor TokenDispatcher::Unpermute(const at::Tensor& sorted_TD,
                                      const std::shared_ptr<const DispatchPlan>& plan) const {
  return MoveRows(RowMove::kUnpermute, sorted_TD, plan, expert_);
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
  return MoveRows(RowMove::kDispatch, sent_KD, plan, expert_, known);
}

at::Tensor TokenDispatcher::Combine(const at::Tensor& rows_RD,
                                    const std::shared_ptr<const DispatchPlan>& plan,
                                    const at::Tensor& known) const {
  return MoveRows(RowMove::kCombine, rows_RD, plan, expert_, known);
}

}  // namespace hypermoe
