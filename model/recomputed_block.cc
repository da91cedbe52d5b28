#include "model/recomputed_block.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <utility>

namespace hypermoe {
namespace {

using torch::autograd::variable_list;

// What of a block takes part in backward: its output, and the router's that losses look at.
variable_list Differentiable(const at::Tensor& y_TD, const std::vector<RoutingResult>& routing) {
  variable_list outputs = {y_TD};
  for (const RoutingResult& decision : routing) {
    outputs.push_back(decision.logits_TN);
    outputs.push_back(decision.probs_TN);
    outputs.push_back(decision.gate_TK);
    outputs.push_back(decision.log_sum_T);
    if (decision.load_TN.defined()) outputs.push_back(decision.load_TN);
  }
  return outputs;
}

class RecomputedBlockBackward final : public torch::autograd::Node {
 public:
  RecomputedBlockBackward(TransformerBlock& block, at::Tensor x_TD, at::Tensor row_ids_B,
                          const ForwardMode& mode)
      : block_(block), x_TD_(std::move(x_TD)), row_ids_B_(std::move(row_ids_B)), mode_(mode) {}

  MoeRecord* record() { return &record_; }

 protected:
  variable_list apply(variable_list&& gradients) override {
    at::AutoGradMode enabled(true);
    const at::Tensor x_TD = x_TD_.detach().set_requires_grad(true);
    std::vector<RoutingResult> routing;
    const at::Tensor y_TD = block_.Forward(x_TD, row_ids_B_, mode_, &routing, &record_);
    const variable_list outputs = Differentiable(y_TD, routing);
    variable_list roots, root_gradients;
    for (size_t i = 0; i < outputs.size(); ++i) {
      // The block's own output always, for the exchanges in its backward need all ranks.
      if (i > 0 && !gradients[i].defined()) continue;
      roots.push_back(outputs[i]);
      root_gradients.push_back(gradients[i].defined() ? gradients[i]
                                                      : input_metadata(i).zeros_like());
    }
    torch::autograd::backward(roots, root_gradients);
    return {x_TD.grad()};
  }

  void release_variables() override {
    x_TD_.reset();
    record_ = MoeRecord();
  }

 private:
  TransformerBlock& block_;
  at::Tensor x_TD_, row_ids_B_;
  ForwardMode mode_;
  MoeRecord record_;
};

}  // namespace

at::Tensor ForwardRecomputed(TransformerBlock& block, const at::Tensor& x_TD,
                             const at::Tensor& row_ids_B, const ForwardMode& mode,
                             std::vector<RoutingResult>* routing) {
  if (!torch::autograd::compute_requires_grad(x_TD))
    return block.Forward(x_TD, row_ids_B, mode, routing);
  auto* backward = new RecomputedBlockBackward(block, x_TD.detach(), row_ids_B, mode);
  const std::shared_ptr<torch::autograd::Node> node(backward, torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(x_TD));
  at::Tensor y_TD;
  std::vector<RoutingResult> decisions;
  {
    at::NoGradGuard no_grad;
    y_TD = block.Forward(x_TD, row_ids_B, mode, &decisions, backward->record());
  }
  for (at::Tensor& output : Differentiable(y_TD, decisions)) {
    torch::autograd::set_history(output, node);
  }
  routing->insert(routing->end(), decisions.begin(), decisions.end());
  return y_TD;
}

}  // namespace hypermoe
