// Initial values of the hypernetwork's parameters (configs/run.proto, HyperConfig.Initial).
#pragma once

#include <cstdint>

#include "configs/run.pb.h"
#include "model/parameter_factory.h"

namespace hypermoe {

class HyperInit {
 public:
  explicit HyperInit(const HyperConfig& config) : config_(config) {}

  Init Embedding() const;
  // Of the linear maps up to k.
  Init LinearWeight(int64_t fan_in) const;
  Init LinearBias(int64_t fan_in) const;
  // Of weights and biases of condition weights' convolutions, whatever hyper.init says:
  // torch.nn.Conv2d's, which none of the sources that its values stand for changes.
  static Init Convolution(int64_t fan_in);
  // Of the maps from k: W_D, W_U and those of generated biases. Their own biases start at 0.
  Init Down(int64_t num_experts, int64_t top_k, int64_t width) const;
  Init Up() const;
  Init DownOffset() const;
  Init UpOffset() const;

 private:
  // E[x^2] of the embedding of Eq. 6, and of what the maps before it give k, by the distributions
  // above.
  double SelectionMeanSquare(int64_t num_experts, int64_t top_k) const;
  double HiddenMeanSquare(int64_t num_experts, int64_t top_k, int64_t width) const;
  // normal_1e2 and normal_2e2: the standard deviation; otherwise 0.
  double NormalStd() const;

  const HyperConfig& config_;
};

}  // namespace hypermoe
