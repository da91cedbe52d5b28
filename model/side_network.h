// What the kinds moe_share and adapter add to the selected expert: one network per sparse layer
// that every token passes, ungated, as a control for what HyperExperts add.
//
//   moe_share  F(x), of an expert's size: h.3.mlp.shared_expert.*, named as experts are
//   adapter    relu(x A^T + a) B^T + c, A [b,D], B [D,b]: h.3.mlp.adapter.down|up.weight|bias
//
// The last matrix and its bias start at zero, so that training starts from the plain mixture of
// experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "configs/run.pb.h"
#include "kernels/grouped_ffn.h"
#include "model/parameter_factory.h"

namespace hypermoe {

class SideNetwork {
 public:
  // prefix: "h.3.mlp.". Other kinds have none: Forward then returns an undefined tensor.
  SideNetwork(const std::string& prefix, const ModelConfig& config, int64_t adapter_width,
              ParameterFactory& factory);

  // dropout: within a shared expert.
  at::Tensor Forward(const at::Tensor& x_TD, const InnerDropout& dropout) const;

 private:
  bool adapter_;
  Activation activation_;      // of a shared expert
  GroupedFfnWeights weights_;  // without the axis of groups; an adapter's matrices [out, in]
};

}  // namespace hypermoe
