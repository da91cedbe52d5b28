// Two-layer networks applied to consecutive groups of rows, one network a group: the experts of a
// rank, the HyperExperts of a layer, and (with one group) a dense feed-forward sub-layer.
//
// Legend: R rows, G groups, D width, F inner width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/activation.h"
#include "kernels/random_key.h"

namespace hypermoe {

// Weights of G networks; matrices map [in, out]. Biases may both be undefined. A single network's
// may lack the first axis.
struct GroupedFfnWeights {
  at::Tensor up_GDF;    // first matrix
  at::Tensor up_GF;     // its bias
  at::Tensor down_GFD;  // second matrix
  at::Tensor down_GD;   // its bias
};

// Dropout of what the activation gives, as KeyedDropout drops a row of F elements for each token.
// probability 0: none, and the rest is not looked at.
struct InnerDropout {
  double probability = 0;
  RandomKey key;
  at::Tensor token_ids_R;  // int64, on x's device: the token that each row is, in every layout
};

// y_RD: for every group g and its rows x, dropout(activation(x up_g + bias)) down_g + bias.
// rows_per_group sums to R; groups may be empty, R may be 0. float32, float64 or bfloat16, as x has
// it: weights of another dtype are cast (small networks cast x to theirs instead if it is wider:
// small_ffn.h), their gradients are in their own. Differentiable in x and all weights, of which
// those that do not require grad cost nothing in backward; matrices that have gradients already get
// theirs added in place (weight_gradient.h), where a group without rows adds nothing. On the CPU
// sums over rows run in row order within one matrix product per group.
at::Tensor GroupedFfn(const at::Tensor& x_RD, const std::vector<int64_t>& rows_per_group,
                      const GroupedFfnWeights& weights, Activation activation,
                      const InnerDropout& dropout = {});

}  // namespace hypermoe
