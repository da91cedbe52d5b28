// Logits for decoding tests: random numbers that depend on all that was decoded so far.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/beam_search.h"
#include "tests/support/random_tensor.h"

namespace hypermoe {

// Also sees that a beam's ids are those of the beam it comes from and one more.
class RandomLogits {
 public:
  // `end_bonus` is added to the logit of id 1.
  RandomLogits(int64_t vocab, const std::string& name, double end_bonus = 0)
      : vocab_(vocab), name_(name), end_bonus_(end_bonus) {}

  at::Tensor operator()(const at::Tensor& ids_NL, const at::Tensor& parents_N) {
    EXPECT_EQ(parents_N.sizes(), at::IntArrayRef({ids_NL.size(0)}));
    if (before_.defined()) {
      EXPECT_TRUE(
          ids_NL.narrow(1, 0, ids_NL.size(1) - 1).equal(before_.index_select(0, parents_N)));
    }
    before_ = ids_NL;
    ++calls_;
    std::vector<at::Tensor> rows;
    for (int64_t i = 0; i < ids_NL.size(0); ++i) {
      const int64_t* ids = ids_NL[i].const_data_ptr<int64_t>();
      rows.push_back(Of({ids, ids + ids_NL.size(1)}));
    }
    return rows.empty() ? at::empty({0, vocab_}, at::kDouble) : at::stack(rows);
  }

  at::Tensor Of(const std::vector<int64_t>& ids) const {
    std::string name = name_;
    for (const int64_t id : ids) name += " " + std::to_string(id);
    const at::Tensor logits_V = Random({vocab_}, name);
    logits_V[1] += end_bonus_;
    return logits_V;
  }
  int calls() const { return calls_; }

 private:
  int64_t vocab_;
  std::string name_;
  double end_bonus_;
  at::Tensor before_;
  int calls_ = 0;
};

}  // namespace hypermoe
