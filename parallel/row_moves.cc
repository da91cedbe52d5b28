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
namespace {

RowMove Opposite(RowMove move) {
  switch (move) {
    case RowMove::kPermute:
      return RowMove::kUnpermute;
    case RowMove::kUnpermute:
      return RowMove::kPermute;
    case RowMove::kDispatch:
      return RowMove::kCombine;
    case RowMove::kCombine:
      break;
  }
  return RowMove::kDispatch;
}

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

// Whether a move leaves every row of this rank where it is. For the collective ones all ranks
// agree.
bool IsIdentity(RowMove move, const DispatchPlan& plan, const Communicator& expert) {
  const bool local = move == RowMove::kPermute || move == RowMove::kUnpermute;
  // One rank: what arrives is what was sent, grouped by expert already.
  return local ? plan.sorted : expert.size() == 1;
}

at::Tensor Move(RowMove move, const at::Tensor& rows, const DispatchPlan& plan,
                Communicator& expert) {
  const at::Tensor dense = rows.contiguous();
  switch (move) {
    case RowMove::kPermute:
      return at::index_select(dense, 0, plan.order_T);
    case RowMove::kUnpermute:
      return at::index_select(dense, 0, plan.inverse_T);
    case RowMove::kDispatch: {
      const at::Tensor arrived = expert.AllToAllRows(dense, plan.send_rows, plan.recv_rows);
      return plan.blocks.empty() ? arrived : MoveBlocks(arrived, plan.blocks, /*to_placed=*/true);
    }
    case RowMove::kCombine:
      break;
  }
  const at::Tensor departing =
      plan.blocks.empty() ? dense : MoveBlocks(dense, plan.blocks, /*to_placed=*/false);
  return expert.AllToAllRows(departing, plan.recv_rows, plan.send_rows);
}

// A node of our own instead of torch::autograd::Function, whose header takes twice as long to
// compile.
class MoveRowsBackward final : public torch::autograd::Node {
 public:
  MoveRowsBackward(RowMove move, std::shared_ptr<const DispatchPlan> plan,
                   std::shared_ptr<Communicator> expert)
      : move_(move), plan_(std::move(plan)), expert_(std::move(expert)) {}

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    // No gradient may have come to this rank's rows while it has to others': the exchange needs all
    // ranks.
    const at::Tensor gradient =
        gradients[0].defined() ? gradients[0] : input_metadata(0).zeros_like();
    return {MoveRows(move_, gradient, plan_, expert_)};
  }

 private:
  RowMove move_;
  std::shared_ptr<const DispatchPlan> plan_;
  std::shared_ptr<Communicator> expert_;
};

}  // namespace

at::Tensor MoveRows(RowMove move, const at::Tensor& rows,
                    const std::shared_ptr<const DispatchPlan>& plan,
                    const std::shared_ptr<Communicator>& expert, const at::Tensor& known) {
  const int64_t num_rows = move == RowMove::kCombine    ? plan->num_received
                           : move == RowMove::kDispatch ? plan->num_sent
                                                        : plan->num_tokens;
  TORCH_CHECK(rows.dim() >= 1 && rows.size(0) == num_rows, "a tensor of shape ", rows.sizes(),
              " was given for a dispatch plan that has ", num_rows, " rows here");
  if (IsIdentity(move, *plan, *expert)) return rows;
  if (known.defined() && !torch::autograd::compute_requires_grad(rows)) return known;
  if (!torch::autograd::compute_requires_grad(rows)) return Move(move, rows, *plan, *expert);

  // deleteNode, for it takes long graphs apart without recursion.
  std::shared_ptr<torch::autograd::Node> node(new MoveRowsBackward(Opposite(move), plan, expert),
                                              torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(rows));
  at::Tensor moved;
  {
    at::NoGradGuard no_grad;
    // A tensor of its own, for this graph's history is not that of the pass that knew it.
    moved = known.defined() ? known.detach() : Move(move, rows, *plan, *expert);
  }
  torch::autograd::set_history(moved, node);
  return moved;
}

}  // namespace hypermoe
