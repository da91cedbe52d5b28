#include "runtime/expert_watch.h"

#include <c10/util/Exception.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace hypermoe {
namespace {

constexpr size_t kMostNamed = 16;

struct Expert {
  int64_t block;
  int64_t number;
};

// "block 2: 3, 5; block 4: 0 and 12 more"
std::string ListExperts(const std::vector<Expert>& experts) {
  std::string list;
  for (size_t i = 0; i < experts.size() && i < kMostNamed; ++i) {
    if (i > 0 && experts[i].block == experts[i - 1].block) {
      absl::StrAppend(&list, ", ", experts[i].number);
    } else {
      absl::StrAppend(&list, i > 0 ? "; " : "", "block ", experts[i].block, ": ",
                      experts[i].number);
    }
  }
  if (experts.size() > kMostNamed) {
    absl::StrAppend(&list, " and ", experts.size() - kMostNamed, " more");
  }
  return list;
}

std::string Describe(const std::vector<Expert>& dead) {
  const std::string who = dead.size() == 1
                              ? absl::StrCat("expert ", dead[0].number, " of block ", dead[0].block)
                              : absl::StrCat(dead.size(), " experts");
  const std::string which = dead.size() == 1 ? "" : absl::StrCat(" (", ListExperts(dead), ")");
  return absl::StrCat(who, " got no token in the last ", kDeadAfterSteps, " steps", which,
                      ": raise model.balance_loss.coefficient or model.router_jitter, or lower "
                      "model.num_experts");
}

}  // namespace

ExpertWatch::ExpertWatch(std::vector<int64_t> sparse_layers)
    : sparse_layers_(std::move(sparse_layers)) {}

std::string ExpertWatch::Observe(const at::Tensor& tokens_LN) {
  const at::Tensor dense_LN = tokens_LN.contiguous();
  TORCH_CHECK(
      dense_LN.dim() == 2 && dense_LN.size(0) == static_cast<int64_t>(sparse_layers_.size()),
      "tokens by layer and expert have shape ", dense_LN.sizes(), ", expected ",
      sparse_layers_.size(), " layers");
  const int64_t num_experts = dense_LN.size(1);
  const int64_t* tokens = dense_LN.const_data_ptr<int64_t>();
  idle_steps_.resize(dense_LN.numel(), 0);
  std::vector<Expert> dead;
  for (int64_t i = 0; i < dense_LN.numel(); ++i) {
    idle_steps_[i] = tokens[i] > 0 ? 0 : idle_steps_[i] + 1;
    if (idle_steps_[i] == kDeadAfterSteps) {
      dead.push_back({sparse_layers_[i / num_experts], i % num_experts});
    }
  }
  return dead.empty() ? "" : Describe(dead);
}

}  // namespace hypermoe
