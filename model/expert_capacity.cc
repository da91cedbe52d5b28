#include "model/expert_capacity.h"

#include <ATen/ops/empty.h>
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

}  // namespace

int64_t CapacityGroupRows(const CapacityConfig& config) {
  return config.mode() == CapacityConfig::factor_per_group ? config.group_rows() : 1;
}

at::Tensor ChoicesTaken(const at::Tensor& expert_ids_TK, int64_t num_rows, int64_t num_experts,
                        const CapacityConfig& config) {
  if (config.mode() == CapacityConfig::none) return {};
  const at::Tensor dense_TK = expert_ids_TK.cpu().contiguous();
  const int64_t num_tokens = dense_TK.size(0), top_k = dense_TK.size(1);
  const int64_t row_tokens = num_rows == 0 ? 0 : num_tokens / num_rows;
  TORCH_CHECK(row_tokens * num_rows == num_tokens, "capacity: ", num_tokens,
              " tokens cannot be cut into ", num_rows, " rows");
  const int64_t group_rows = CapacityGroupRows(config);
  const int64_t group_tokens = group_rows > 0 ? group_rows * row_tokens : num_tokens;
  const int64_t* ids = dense_TK.const_data_ptr<int64_t>();
  at::Tensor taken_TK = at::empty(dense_TK.sizes(), at::kBool);
  bool* taken = taken_TK.mutable_data_ptr<bool>();
  for (int64_t begin = 0; begin < num_tokens; begin += group_tokens) {
    const int64_t end = std::min(begin + group_tokens, num_tokens);
    const int64_t limit = LimitOf(config, top_k, end - begin, num_experts);
    std::vector<int64_t> count(static_cast<size_t>(num_experts), 0);
    for (int64_t choice = 0; choice < top_k; ++choice) {
      for (int64_t i = begin * top_k + choice; i < end * top_k; i += top_k) {
        taken[i] = count[ids[i]]++ < limit;
      }
    }
  }
  return taken_TK.to(expert_ids_TK.device());
}

}  // namespace hypermoe
