#include "model/expert_capacity.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace hypermoe {
namespace {

int64_t LimitOf(const CapacityConfig& config, int64_t top_k, int64_t group_tokens,
                int64_t num_experts) {
  if (config.mode() == CapacityConfig::fixed_per_row) return config.tokens_per_row();
  constexpr int64_t kSmallest = 4;
  // In this order, for the rounding of each product shows in the floor.
  const double even_share = config.factor() * static_cast<double>(top_k) *
                            static_cast<double>(group_tokens) / static_cast<double>(num_experts);
  return std::max(kSmallest, static_cast<int64_t>(std::floor(even_share)));
}

// The capacity groups of a pass; the last may be shorter.
struct Groups {
  int64_t tokens;  // of a group
  int64_t count;
  int64_t limit, last_limit;

  Groups(int64_t num_tokens, int64_t num_rows, int64_t top_k, int64_t num_experts,
         const CapacityConfig& config) {
    const int64_t row_tokens = num_rows == 0 ? 0 : num_tokens / num_rows;
    TORCH_CHECK(row_tokens * num_rows == num_tokens, "capacity: ", num_tokens,
                " tokens cannot be cut into ", num_rows, " rows");
    const int64_t group_rows = CapacityGroupRows(config);
    tokens = std::max<int64_t>(group_rows > 0 ? group_rows * row_tokens : num_tokens, 1);
    count = (num_tokens + tokens - 1) / tokens;
    limit = LimitOf(config, top_k, tokens, num_experts);
    last_limit = LimitOf(config, top_k, num_tokens - (count - 1) * tokens, num_experts);
  }
};

}  // namespace

int64_t CapacityGroupRows(const CapacityConfig& config) {
  return config.mode() == CapacityConfig::factor_per_group ? config.group_rows() : 1;
}

at::Tensor ChoicesTaken(const at::Tensor& expert_ids_TK, int64_t num_rows, int64_t num_experts,
                        const CapacityConfig& config) {
  if (config.mode() == CapacityConfig::none) return {};
  if (!expert_ids_TK.is_cpu()) {
    return ChoicesTakenOnDevice(expert_ids_TK, num_rows, num_experts, config);
  }
  const at::Tensor dense_TK = expert_ids_TK.contiguous();
  const int64_t num_tokens = dense_TK.size(0), top_k = dense_TK.size(1);
  const Groups groups(num_tokens, num_rows, top_k, num_experts, config);
  const int64_t* ids = dense_TK.const_data_ptr<int64_t>();
  at::Tensor taken_TK = at::empty(dense_TK.sizes(), at::kBool);
  bool* taken = taken_TK.mutable_data_ptr<bool>();
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t begin = group * groups.tokens;
    const int64_t end = std::min(begin + groups.tokens, num_tokens);
    const int64_t limit = group + 1 < groups.count ? groups.limit : groups.last_limit;
    std::vector<int64_t> count(static_cast<size_t>(num_experts), 0);
    for (int64_t choice = 0; choice < top_k; ++choice) {
      for (int64_t i = begin * top_k + choice; i < end * top_k; i += top_k) {
        taken[i] = count[ids[i]]++ < limit;
      }
    }
  }
  return taken_TK;
}

at::Tensor ChoicesTakenOnDevice(const at::Tensor& expert_ids_TK, int64_t num_rows,
                                int64_t num_experts, const CapacityConfig& config) {
  const int64_t num_tokens = expert_ids_TK.size(0), top_k = expert_ids_TK.size(1);
  const Groups groups(num_tokens, num_rows, top_k, num_experts, config);
  const auto count_to = [&](int64_t end) { return at::arange(end, expert_ids_TK.options()); };
  // Sorted by group, expert and number of the choice, and otherwise left in order, the choices of a
  // queue (one expert's of a group) stand together in the order in which they are taken.
  const at::Tensor group_T1 = count_to(num_tokens).floor_divide(groups.tokens).unsqueeze(1);
  const at::Tensor key_C =
      ((group_T1 * num_experts + expert_ids_TK) * top_k + count_to(top_k)).flatten();
  const auto [sorted_C, order_C] = at::sort(key_C, /*stable=*/true, 0, /*descending=*/false);
  const at::Tensor queue_C = sorted_C.floor_divide(top_k);
  const at::Tensor place_C = count_to(key_C.numel()) - at::searchsorted(queue_C, queue_C);
  const at::Tensor in_last_C = queue_C.ge((groups.count - 1) * num_experts);
  const at::Tensor taken_C =
      at::where(in_last_C, place_C.lt(groups.last_limit), place_C.lt(groups.limit));
  return at::empty_like(taken_C).scatter_(0, order_C, taken_C).view_as(expert_ids_TK);
}

}  // namespace hypermoe
