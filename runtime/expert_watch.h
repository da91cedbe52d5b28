// Notices experts that no token reaches any more: they cost memory and learn nothing, and a router
// that has left an expert rarely finds back to it by itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace hypermoe {

// Optimizer steps in a row without a token after which an expert is called dead. By chance alone an
// expert of N that are used equally misses a step of T tokens with probability (1 - 1/N)^T, nothing
// at the hundreds of tokens an expert that a batch has; a router that is still being learned leaves
// an expert for some tens of steps.
constexpr int kDeadAfterSteps = 100;

class ExpertWatch {
 public:
  // sparse_layers: the block numbers of the rows of tokens_LN. Counting starts with this object, so
  // after a resume as well.
  explicit ExpertWatch(std::vector<int64_t> sparse_layers);

  // Call once a step. tokens_LN: int64, tokens of the step's batch by sparse layer and expert.
  // Returns one line about the experts that have died in this step, or "". An expert is named again
  // only after it has had tokens in between.
  std::string Observe(const at::Tensor& tokens_LN);

 private:
  std::vector<int64_t> sparse_layers_;
  std::vector<int64_t> idle_steps_;  // in a row, by sparse layer and expert
};

}  // namespace hypermoe
