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
  RecomputedBlockBackward(BlockPass pass, const variable_list& inputs) : pass_(std::move(pass)) {
    for (const at::Tensor& input : inputs) inputs_.push_back(input.detach());
  }

  const variable_list& inputs() const { return inputs_; }
  MoeRecord* record() { return &record_; }

 protected:
  variable_list apply(variable_list&& gradients) override {
    at::AutoGradMode enabled(true);
    variable_list inputs;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      inputs.push_back(inputs_[i].detach().set_requires_grad(next_edge(i).is_valid()));
    }
    std::vector<RoutingResult> routing;
    const at::Tensor y_TD = pass_(inputs, &routing, &record_);
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
    variable_list input_gradients;
    for (const at::Tensor& input : inputs) input_gradients.push_back(input.grad());
    return input_gradients;
  }

  void release_variables() override {
    pass_ = nullptr;
    inputs_.clear();
    record_ = MoeRecord();
  }

 private:
  BlockPass pass_;
  variable_list inputs_;
  MoeRecord record_;
};

}  // namespace

at::Tensor ForwardRecomputed(const BlockPass& pass, const std::vector<at::Tensor>& inputs,
                             std::vector<RoutingResult>* routing) {
  if (!torch::autograd::compute_requires_grad(inputs)) return pass(inputs, routing, nullptr);
  auto* backward = new RecomputedBlockBackward(pass, inputs);
  const std::shared_ptr<torch::autograd::Node> node(backward, torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  at::Tensor y_TD;
  std::vector<RoutingResult> decisions;
  {
    at::NoGradGuard no_grad;
    y_TD = pass(backward->inputs(), &decisions, backward->record());
  }
  for (at::Tensor& output : Differentiable(y_TD, decisions)) {
    torch::autograd::set_history(output, node);
  }
  routing->insert(routing->end(), decisions.begin(), decisions.end());
  return y_TD;
}

}  // namespace hypermoe
