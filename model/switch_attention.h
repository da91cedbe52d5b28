// Attention of T5 and Switch Transformer: no biases, scores that are not scaled
// (kernels/relative_attention.h).
//
// Legend: B rows, T tokens of them, row by row, D width, H heads, S positions, L positions attended
// to, C head width.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "configs/run.pb.h"
#include "kernels/relative_attention.h"
#include "model/parameter_factory.h"

namespace hypermoe {

class SwitchAttention {
 public:
  struct KeysValues {
    at::Tensor keys_BHLC, values_BHLC;
  };

  // Parameters: prefix + q|k|v.weight, named [H C, D], and o.weight, named [D, H C].
  SwitchAttention(const std::string& prefix, const ModelConfig& config, ParameterFactory& factory);

  // Of the tokens of `rows` rows of `positions` tokens each (0 of 0 rows).
  KeysValues Project(const at::Tensor& source_TD, int64_t rows, int64_t positions) const;
  // What the tokens of x_TD, of as many rows as there are keys of, find there.
  at::Tensor Attend(const at::Tensor& x_TD, const KeysValues& source, const AttentionBias& bias,
                    int64_t positions, const AttentionDropout& dropout) const;

 private:
  at::Tensor Heads(const at::Tensor& x_TD, const at::Tensor& weight_DE, int64_t rows,
                   int64_t positions) const;

  int64_t heads_, head_size_;
  at::Tensor q_DE_, k_DE_, v_DE_, o_ED_;
};

}  // namespace hypermoe
