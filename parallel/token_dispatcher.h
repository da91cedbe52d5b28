// Moves token rows to the ranks that hold their experts and back, with autograd.
//
//   plan = MakePlan(expert_ids_T, ...)   one read by the host, one small exchange of counts
//   sorted_TD = Permute(x_TD, plan)      local: rows grouped by expert, stable
//   sent_KD   = Select(sorted_TD, plan)  local: without the rows that stay here
//   rows_RD   = Dispatch(sent_KD, plan)  all-to-all; by local expert, then source rank, then order
//   ...experts work on rows_RD, plan.rows_per_local_expert rows each...
//   back_KD   = Combine(rows_RD, plan)   all-to-all; the inverse of Dispatch
//   back_TD   = Restore(back_KD, plan)   local: zero for the rows that stayed
//   y_TD      = Unpermute(back_TD, plan) local: the inverse of Permute
//
// Dispatch and making a plan can be taken in two steps, between which other work is done while rows
// or counts travel.
//
// Legend: T tokens of this rank, K of them that are sent, R rows received here, D width. Dispatch
// and Combine are collective over the expert group in forward, and again in backward: every rank of
// the group must run backward through the same calls in the same order, with zero rows too. To
// guarantee that autograd reaches them on a rank without tokens, inputs must require grad on all
// ranks or on none. A move that changes nothing (tokens sorted already, a group of one) returns its
// input itself, so treat results as read-only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/host_read.h"
#include "parallel/communicator.h"
#include "parallel/process_mesh.h"

namespace hypermoe {

// `rows` consecutive rows, at `arrived` in the order of arrival (by source rank, then by local
// expert) and at `placed` in expert-major order.
struct RowBlock {
  int64_t arrived = 0;
  int64_t placed = 0;
  int64_t rows = 0;
};

// What FinishPlan still has to take in.
struct PlanUnderWay {
  HostRead counts;           // of tokens by expert, and of those sent if not all are
  at::Tensor sent_first_T;   // int64: tokens, the sent ones first; undefined: all are sent
  StartedExchange arriving;  // what the other ranks send here; pending null: not started
};

// Where every row of one routing decision goes. Immutable once it is finished; forward and backward
// share it.
struct DispatchPlan {
  int64_t num_tokens = 0;  // T
  at::Tensor order_T;      // int64: sorted position -> token
  at::Tensor inverse_T;    // int64: token -> sorted position
  // The tokens stand in expert order already, so Permute has nothing to do. Never of tokens on a
  // GPU, where the host would have to wait to know it.
  bool sorted = false;

  // What FinishPlan adds.
  std::vector<int64_t> rows_per_expert;  // [N]: local tokens by global expert
  at::Tensor sent_K;  // int64: the sorted positions that are sent; undefined: all of them
  std::vector<int64_t> send_rows, recv_rows;  // [P]: rows to and from each rank of the expert group
  std::vector<int64_t> rows_per_local_expert;  // [e]: rows received for each expert held here
  // How rows that have arrived become expert-major; empty if they are so on arrival.
  std::vector<RowBlock> blocks;
  int64_t num_sent = 0;      // K
  int64_t num_received = 0;  // R

  std::unique_ptr<PlanUnderWay> under_way;  // null: the plan is finished
};

struct GradientExchange;

// Rows that Dispatch or Combine has sent off.
struct RowsUnderWay {
  bool dispatch = true;      // otherwise Combine
  at::Tensor departed;       // the rows that were given, with their history
  at::Tensor known;          // what arrives, where it is known and nothing travels
  StartedExchange exchange;  // pending null: nothing travels
  std::shared_ptr<const DispatchPlan> plan;
  std::shared_ptr<GradientExchange> backward;  // null: none to come
};

class TokenDispatcher {
 public:
  // `expert` is the expert group; experts are placed by ExpertsOfRank.
  TokenDispatcher(std::shared_ptr<Communicator> expert, int64_t num_experts);

  int64_t num_experts() const { return num_experts_; }
  ExpertRange local_experts() const { return local_experts_; }
  // Whether rows travel at all: not in a group of one.
  bool exchanges() const { return expert_->size() > 1; }

  // What every rank has made of its own experts, brought together: GatherExperts.
  at::Tensor GatherFromOwners(const at::Tensor& own_eX) const;

  // expert_ids_T: int64 [T], each in [0, num_experts) (checked). sent_T: bool [T], which tokens
  // travel; undefined: all. Collective over the expert group. For several experts a token, T counts
  // choices.
  std::shared_ptr<const DispatchPlan> MakePlan(const at::Tensor& expert_ids_T,
                                               const at::Tensor& sent_T = {}) const;
  // The same in two steps: the rows of a plan that has been started can be permuted, while the
  // device counts and counts travel. FinishPlan of a finished plan does nothing.
  std::shared_ptr<DispatchPlan> StartPlan(const at::Tensor& expert_ids_T,
                                          const at::Tensor& sent_T = {}) const;
  void FinishPlan(DispatchPlan& plan) const;

  at::Tensor Permute(const at::Tensor& x_TD, const std::shared_ptr<const DispatchPlan>& plan) const;
  at::Tensor Unpermute(const at::Tensor& sorted_TD,
                       const std::shared_ptr<const DispatchPlan>& plan) const;
  at::Tensor Select(const at::Tensor& sorted_TD,
                    const std::shared_ptr<const DispatchPlan>& plan) const;
  at::Tensor Restore(const at::Tensor& sent_KD,
                     const std::shared_ptr<const DispatchPlan>& plan) const;
  // Collective over the expert group, in backward too. With `known`, which an earlier call with the
  // same input returned, nothing is sent: the result is its content, with autograd as always.
  at::Tensor Dispatch(const at::Tensor& sent_KD, const std::shared_ptr<const DispatchPlan>& plan,
                      const at::Tensor& known = {}) const;
  // Dispatch in two steps. What is computed between them, and requires grad, has its backward while
  // the gradients of the rows travel: autograd goes from what was recorded last to what was
  // recorded first.
  RowsUnderWay StartDispatch(const at::Tensor& sent_KD,
                             const std::shared_ptr<const DispatchPlan>& plan,
                             const at::Tensor& known = {}) const;
  at::Tensor FinishDispatch(RowsUnderWay rows) const;
  at::Tensor Combine(const at::Tensor& rows_RD, const std::shared_ptr<const DispatchPlan>& plan,
                     const at::Tensor& known = {}) const;

 private:
  void StartCounts(DispatchPlan& plan) const;

  std::shared_ptr<Communicator> expert_;
  int64_t num_experts_;
  ExpertRange local_experts_;
};

}  // namespace hypermoe
