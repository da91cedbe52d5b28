// The sets of experts that a token can select: all subsets of K of N experts, numbered from 0. What
// the HyperExperts of hard routing depend on.
//
// Legend: N experts, K choices of a token, M selections, T tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace hypermoe {

// C(N, K), if there are at most 2^24 (so that float32 holds every number exactly).
std::optional<int64_t> NumSelections(int64_t num_experts, int64_t top_k);

class Selections {
 public:
  // NumSelections must not be empty.
  Selections(int64_t num_experts, int64_t top_k);
  int64_t count() const { return count_; }

  // int64 [T]: the number of each row's set, whose members may stand in any order. With K = 1 the
  // expert's id.
  at::Tensor NumberOf(const at::Tensor& expert_ids_TK) const;
  // int64 [M,K]: the members of the sets with these numbers, ascending.
  at::Tensor Members(const at::Tensor& numbers_M) const;

 private:
  int64_t num_experts_, top_k_, count_;
  // The combinatorial number system: a set c_1 < ... < c_K has number sum_i C(c_i, i).
  std::vector<std::vector<int64_t>> binomial_;  // [K + 1][N + 1]
  // int64 [K (N + 1)]: what the i-th smallest member adds to the number of its selection. Where it
  // was used last, so that a GPU is given it once.
  mutable at::Tensor shares_;
};

}  // namespace hypermoe
