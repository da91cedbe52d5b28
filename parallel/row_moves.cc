#include "parallel/row_moves.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <cstddef>
#include <cstring>
#include <utility>

namespace hypermoe {

// The backward of one exchange, which is the opposite one: DepartBackward and ArriveBackward
// of its two steps share it.
struct GradientExchange {
  bool dispatch;  // the gradients
  std::shared_ptr<const DispatchPlan> plan;
  std::shared_ptr<Communicator> expert;
  StartedExchange started;
};

namespace {

using torch::autograd::variable_list;

// Between the order of arrival and expert-major order.
at::Tensor MoveBlocks(const at::Tensor& rows, const std::vector<RowBlock>& blocks, bool to_placed) {
  at::Tensor result = at::empty_like(rows);
  if (result.nbytes() == 0) return result;
  const size_t row_bytes = result.nbytes() / result.size(0);
  const auto* source = static_cast<const std::byte*>(rows.const_data_ptr());
  auto* target = static_cast<std::byte*>(result.mutable_data_ptr());
  for (const RowBlock& block : blocks) {
    if (block.rows == 0) continue;
    const int64_t from = to_placed ? block.arrived : block.placed;
    const int64_t to = to_placed ? block.placed : block.arrived;
    if (result.is_cpu()) {
      std::memcpy(target + to * row_bytes, source + from * row_bytes, block.rows * row_bytes);
    } else {
      result.narrow(0, to, block.rows).copy_(rows.narrow(0, from, block.rows));
    }
  }
  return result;
}

// No gradient may have come to this rank's rows while it has to others': exchanges need all ranks.
at::Tensor GradientOf(const variable_list& gradients, const torch::autograd::Node& node) {
  return gradients[0].defined() ? gradients[0] : node.input_metadata(0).zeros_like();
}

// `result` becomes what `node` computed from `rows`. Nodes of our own instead of
// torch::autograd::Function, whose header takes twice as long to compile; deleteNode takes long
// graphs apart without recursion.
void SetHistory(at::Tensor& result, const at::Tensor& rows, torch::autograd::Node* node) {
  const std::shared_ptr<torch::autograd::Node> shared(node, torch::autograd::deleteNode);
  shared->set_next_edges(torch::autograd::collect_next_edges(rows));
  torch::autograd::set_history(result, shared);
}

void CheckRows(const at::Tensor& rows, int64_t num_rows) {
  TORCH_CHECK(rows.dim() >= 1 && rows.size(0) == num_rows, "a tensor of shape ", rows.sizes(),
              " was given for a dispatch plan that has ", num_rows, " rows here");
}

at::Tensor Reorder(const at::Tensor& rows, const std::shared_ptr<const DispatchPlan>& plan,
                   bool permute);

class ReorderBackward final : public torch::autograd::Node {
 public:
  ReorderBackward(std::shared_ptr<const DispatchPlan> plan, bool permute)
      : plan_(std::move(plan)), permute_(permute) {}

 protected:
  variable_list apply(variable_list&& gradients) override {
    return {Reorder(GradientOf(gradients, *this), plan_, permute_)};
  }

 private:
  std::shared_ptr<const DispatchPlan> plan_;
  bool permute_;
};

at::Tensor Reorder(const at::Tensor& rows, const std::shared_ptr<const DispatchPlan>& plan,
                   bool permute) {
  CheckRows(rows, plan->num_tokens);
  if (plan->sorted) return rows;
  at::Tensor moved =
      at::index_select(rows.detach().contiguous(), 0, permute ? plan->order_T : plan->inverse_T);
  if (torch::autograd::compute_requires_grad(rows)) {
    SetHistory(moved, rows, new ReorderBackward(plan, !permute));
  }
  return moved;
}

StartedExchange StartExchange(bool dispatch, const at::Tensor& rows, const DispatchPlan& plan,
                              Communicator& expert) {
  const at::Tensor dense = rows.detach().contiguous();
  if (dispatch) return expert.StartAllToAllRows(dense, plan.send_rows, plan.recv_rows);
  const at::Tensor departing =
      plan.blocks.empty() ? dense : MoveBlocks(dense, plan.blocks, /*to_placed=*/false);
  return expert.StartAllToAllRows(departing, plan.recv_rows, plan.send_rows);
}

at::Tensor FinishExchange(bool dispatch, const StartedExchange& exchange,
                          const DispatchPlan& plan) {
  exchange.pending->Wait();
  return dispatch && !plan.blocks.empty()
             ? MoveBlocks(exchange.received, plan.blocks, /*to_placed=*/true)
             : exchange.received;
}

// Of FinishRows: sends the gradients off. What it hands on is where they arrive.
class ArriveBackward final : public torch::autograd::Node {
 public:
  explicit ArriveBackward(std::shared_ptr<GradientExchange> shared) : shared_(std::move(shared)) {}

 protected:
  variable_list apply(variable_list&& gradients) override {
    TORCH_CHECK(!at::GradMode::is_enabled(), "exchanges of rows have no second derivative");
    shared_->started = StartExchange(shared_->dispatch, GradientOf(gradients, *this),
                                     *shared_->plan, *shared_->expert);
    return {shared_->started.received};
  }

 private:
  std::shared_ptr<GradientExchange> shared_;
};

// Of StartRows: waits for them.
class DepartBackward final : public torch::autograd::Node {
 public:
  explicit DepartBackward(std::shared_ptr<GradientExchange> shared) : shared_(std::move(shared)) {}

 protected:
  variable_list apply(variable_list&& /*gradients*/) override {
    const StartedExchange started = std::exchange(shared_->started, {});
    return {FinishExchange(shared_->dispatch, started, *shared_->plan)};
  }

 private:
  std::shared_ptr<GradientExchange> shared_;
};

}  // namespace

at::Tensor PermuteRows(const at::Tensor& rows, const std::shared_ptr<const DispatchPlan>& plan) {
  return Reorder(rows, plan, /*permute=*/true);
}

at::Tensor UnpermuteRows(const at::Tensor& rows, const std::shared_ptr<const DispatchPlan>& plan) {
  return Reorder(rows, plan, /*permute=*/false);
}

RowsUnderWay StartRows(bool dispatch, const at::Tensor& rows,
                       const std::shared_ptr<const DispatchPlan>& plan,
                       const std::shared_ptr<Communicator>& expert, const at::Tensor& known) {
  CheckRows(rows, dispatch ? plan->num_sent : plan->num_received);
  RowsUnderWay under_way{dispatch, rows, known, {}, plan, nullptr};
  // What arrives in a group of one is what was sent, grouped by expert already.
  if (expert->size() == 1) {
    under_way.known = rows;
    return under_way;
  }
  if (!known.defined()) under_way.exchange = StartExchange(dispatch, rows, *plan, *expert);
  if (!torch::autograd::compute_requires_grad(rows)) return under_way;
  under_way.backward =
      std::make_shared<GradientExchange>(GradientExchange{!dispatch, plan, expert, {}});
  under_way.departed = rows.detach();
  SetHistory(under_way.departed, rows, new DepartBackward(under_way.backward));
  return under_way;
}

at::Tensor FinishRows(RowsUnderWay under_way) {
  const RowsUnderWay& rows = under_way;
  if (rows.exchange.pending == nullptr && rows.backward == nullptr) return rows.known;
  // A tensor of its own of what is known, for this graph's history is not that of the pass that
  // knew it.
  at::Tensor arrived = rows.exchange.pending == nullptr
                           ? rows.known.detach()
                           : FinishExchange(rows.dispatch, rows.exchange, *rows.plan);
  if (rows.backward != nullptr) {
    SetHistory(arrived, rows.departed, new ArriveBackward(rows.backward));
  }
  return arrived;
}

}  // namespace hypermoe
