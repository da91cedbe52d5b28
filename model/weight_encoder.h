// What stands for an expert in condition weights: an embedding that a convolutional network
// computes from the expert's two matrices (arXiv:2402.12656, Appendix A), the same network for all
// experts and layers. Its input has two channels [F,D]: the first matrix transposed (a row for each
// hidden unit), and the second.
//   0  5x5, stride 5, each channel by itself       2 x 384 x 144
//   1  1x1, then act                              32 x 384 x 144
//      mean over 16x6                             32 x  24 x  24
//   2  3x3, stride 3, each channel by itself      32 x   8 x   8
//   3  1x1, then act                             128 x   8 x   8
//      mean over 8x8                             128
// Nothing is padded and no window overlaps another, so every size is divided by one number at each
// step and rounded down: these are the sizes for all F from 1920 to 3839 and D from 720 to 1439
// (the paper's are 3072 and 768), of which the first 1920 rows and 720 columns are read. Smaller
// experts would leave nothing at the end, larger ones more than one embedding.
//
// Cost: an expert takes 6.6 million multiply-adds and, while it is worked on, about 40 MB (float32)
// that are not kept; backward computes it once more. Experts are read in place, one by one.
//
// Legend: e experts, F inner width, D width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "configs/run.pb.h"
#include "model/parameter_factory.h"

namespace hypermoe {

class WeightEncoder {
 public:
  static constexpr int64_t kRows = 1920, kColumns = 720;  // of each matrix, that are read
  static constexpr int64_t kWidth = 128;                  // of an embedding
  static constexpr int64_t kParameters = 4692;
  // Multiply-adds of its products for one expert, and elements that one is worked on with.
  static constexpr int64_t kOperations = 384 * 144 * (2 * 25 + 2 * 32) + 64 * (32 * 9 + 32 * 128);
  static constexpr int64_t kWorkspace = 384 * 144 * (2 * 25 + 4 * 32);

  static bool Reads(int64_t inner, int64_t width) {
    return inner / kRows == 1 && width / kColumns == 1;
  }

  // Parameters: hypermoe.weight_encoder.{n}.{weight,bias} in the numbers above, [2,1,5,5], [2],
  // [32,2,1,1], [32], [32,1,3,3], [32], [128,32,1,1], [128].
  WeightEncoder(const HyperConfig& config, ParameterFactory& factory);

  // [e,128]: the embeddings of experts whose matrices are these, [e,D,F] and [e,F,D].
  // Differentiable in the network's parameters, and if conv_grad_to_experts in the matrices.
  at::Tensor Encode(const at::Tensor& up_eDF, const at::Tensor& down_eFD) const;

 private:
  bool relu_, gradient_to_experts_;
  std::vector<at::Tensor> parameters_;  // weight and bias of each convolution
};

}  // namespace hypermoe
