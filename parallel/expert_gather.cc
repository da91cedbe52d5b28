#include "parallel/expert_gather.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <utility>
#include <vector>

#include "parallel/process_mesh.h"

namespace hypermoe {
namespace {

using torch::autograd::variable_list;

// Every rank's part is as long as the longest, which is the first one's.
int64_t RowsOfPart(const Communicator& expert, int64_t num_experts) {
  return ExpertsOfRank(num_experts, expert.size(), 0).size();
}

// [ranks * RowsOfPart, ...], zero.
at::Tensor EmptyParts(const at::Tensor& like_X, const Communicator& expert, int64_t num_experts) {
  std::vector<int64_t> shape = like_X.sizes().vec();
  shape[0] = expert.size() * RowsOfPart(expert, num_experts);
  return at::zeros(shape, like_X.options().requires_grad(false));
}

class GatherExpertsBackward final : public torch::autograd::Node {
 public:
  GatherExpertsBackward(std::shared_ptr<Communicator> expert, int64_t num_experts)
      : expert_(std::move(expert)), num_experts_(num_experts) {}

 protected:
  // No gradient may have come to this rank while it has to others: all of them take part.
  variable_list apply(variable_list&& gradients) override {
    const at::Tensor gradient_NX =
        gradients[0].defined() ? gradients[0] : input_metadata(0).zeros_like();
    const int64_t rows = RowsOfPart(*expert_, num_experts_);
    const at::Tensor parts = EmptyParts(gradient_NX, *expert_, num_experts_);
    for (int p = 0; p < expert_->size(); ++p) {
      const ExpertRange experts = ExpertsOfRank(num_experts_, expert_->size(), p);
      parts.narrow(0, p * rows, experts.size())
          .copy_(gradient_NX.narrow(0, experts.begin, experts.size()));
    }
    expert_->StartReduceScatterSum(parts.flatten())->Wait();
    const int64_t own = ExpertsOfRank(num_experts_, expert_->size(), expert_->rank()).size();
    return {parts.narrow(0, expert_->rank() * rows, own)};
  }

 private:
  std::shared_ptr<Communicator> expert_;
  int64_t num_experts_;
};

}  // namespace

at::Tensor GatherExperts(const at::Tensor& own_eX, const std::shared_ptr<Communicator>& expert,
                         int64_t num_experts) {
  const int64_t own = ExpertsOfRank(num_experts, expert->size(), expert->rank()).size();
  TORCH_CHECK(own_eX.dim() >= 1 && own_eX.size(0) == own, "a tensor of shape ", own_eX.sizes(),
              " was given for the ", own, " experts of this rank");
  if (expert->size() == 1) return own_eX;
  const int64_t rows = RowsOfPart(*expert, num_experts);
  const at::Tensor parts = EmptyParts(own_eX, *expert, num_experts);
  parts.narrow(0, expert->rank() * rows, own).copy_(own_eX.detach());
  expert->AllGatherParts(parts.flatten());
  std::vector<at::Tensor> experts;
  for (int p = 0; p < expert->size(); ++p) {
    experts.push_back(
        parts.narrow(0, p * rows, ExpertsOfRank(num_experts, expert->size(), p).size()));
  }
  at::Tensor all_NX = at::cat(experts);
  if (torch::autograd::compute_requires_grad(own_eX)) {
    const std::shared_ptr<torch::autograd::Node> node(
        new GatherExpertsBackward(expert, num_experts), torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(own_eX));
    torch::autograd::set_history(all_NX, node);
  }
  return all_NX;
}

}  // namespace hypermoe
