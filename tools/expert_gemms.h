// What experts cost at least: their matrix products as those of one large network.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <cstdint>

#include "kernels/keyed_random.h"

namespace hypermoe {

// Standard normal numbers; the same for the same name and shape.
inline at::Tensor RandomMatrix(int64_t rows, int64_t columns, const char* name,
                               at::TensorOptions options) {
  const at::Tensor matrix = at::empty({rows, columns}, at::kFloat);
  FillNormal(matrix, RandomKey{1, 0}.Derive(name), 1.0);
  return matrix.to(options);
}

// The products of one expert's forward and backward, once for every choice that a token has.
class ExpertGemms {
 public:
  ExpertGemms(int64_t width, int64_t ffn, int64_t top_k, at::TensorOptions options)
      : top_k_(top_k),
        up_DF_(RandomMatrix(width, ffn, "up", options)),
        down_FD_(RandomMatrix(ffn, width, "down", options)) {}

  // Forward alone without a gradient. Returns the last output.
  at::Tensor Run(const at::Tensor& x_TD, const at::Tensor& grad_TD) const {
    at::Tensor y_TD;
    for (int64_t choice = 0; choice < top_k_; ++choice) {
      const at::Tensor h_TF = at::mm(x_TD, up_DF_);
      y_TD = at::mm(h_TF, down_FD_);
      if (!grad_TD.defined()) continue;
      const at::Tensor grad_TF = at::mm(grad_TD, down_FD_.t());
      at::mm(h_TF.t(), grad_TD);
      at::mm(x_TD.t(), grad_TF);
      at::mm(grad_TF, up_DF_.t());
    }
    return y_TD;
  }

 private:
  int64_t top_k_;
  at::Tensor up_DF_, down_FD_;
};

}  // namespace hypermoe
