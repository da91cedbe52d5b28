#include "model/selections.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/sort.h>
#include <c10/util/Exception.h>

#include <algorithm>

namespace hypermoe {
namespace {

constexpr int64_t kMaxSelections = int64_t{1} << 24;

}  // namespace

std::optional<int64_t> NumSelections(int64_t num_experts, int64_t top_k) {
  // C(N, K) = C(N, N - K); every intermediate C(N, i) with the smaller of both is no larger.
  const int64_t k = std::min(top_k, num_experts - top_k);
  int64_t count = 1;
  for (int64_t i = 1; i <= k; ++i) {
    count = count * (num_experts - k + i) / i;
    if (count > kMaxSelections) return std::nullopt;
  }
  return count;
}

Selections::Selections(int64_t num_experts, int64_t top_k)
    : num_experts_(num_experts), top_k_(top_k) {
  const std::optional<int64_t> count = NumSelections(num_experts, top_k);
  TORCH_CHECK(count.has_value(), "top ", top_k, " of ", num_experts,
              " experts: too many selections to number");
  count_ = *count;
  binomial_.assign(top_k + 1, std::vector<int64_t>(num_experts + 1, 0));
  for (int64_t n = 0; n <= num_experts; ++n) {
    binomial_[0][n] = 1;
    for (int64_t k = 1; k <= std::min(n, top_k); ++k) {
      // Numbers beyond count_ are never looked up; the bound only keeps them from overflowing.
      binomial_[k][n] = std::min(kMaxSelections * 2, binomial_[k - 1][n - 1] + binomial_[k][n - 1]);
    }
  }
  shares_ = at::empty({top_k * (num_experts + 1)}, at::kLong);
  int64_t* share = shares_.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < top_k; ++i) {
    share = std::copy(binomial_[i + 1].begin(), binomial_[i + 1].end(), share);
  }
}

at::Tensor Selections::NumberOf(const at::Tensor& expert_ids_TK) const {
  if (top_k_ == 1) return expert_ids_TK.flatten();
  if (shares_.device() != expert_ids_TK.device()) shares_ = shares_.to(expert_ids_TK.device());
  const at::Tensor members_TK = std::get<0>(at::sort(expert_ids_TK, 1));
  const at::Tensor index_TK =
      members_TK + at::arange(top_k_, members_TK.options()) * (num_experts_ + 1);
  return at::index_select(shares_, 0, index_TK.flatten()).view_as(index_TK).sum(1);
}

at::Tensor Selections::Members(const at::Tensor& numbers_M) const {
  const at::Tensor dense_M = numbers_M.cpu().contiguous();
  const int64_t* numbers = dense_M.const_data_ptr<int64_t>();
  at::Tensor members_MK = at::empty({dense_M.numel(), top_k_}, at::kLong);
  int64_t* members = members_MK.mutable_data_ptr<int64_t>();
  for (int64_t m = 0; m < dense_M.numel(); ++m) {
    int64_t rest = numbers[m], member = num_experts_;
    for (int64_t i = top_k_; i >= 1; --i) {
      // The largest member whose share of the number fits.
      do --member;
      while (binomial_[i][member] > rest);
      rest -= binomial_[i][member];
      members[m * top_k_ + i - 1] = member;
    }
  }
  return members_MK.to(numbers_M.device());
}

}  // namespace hypermoe
