// The feed-forward sub-layer of a block, without norm and residual: dense, or a mixture of experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "kernels/grouped_ffn.h"
#include "model/language_model.h"
#include "model/moe_layer.h"
#include "model/parameter_factory.h"

namespace hypermoe {

class FeedForward {
 public:
  // prefix: "h.3.mlp.". Parameters: MakeDenseFfn (ffn_parameters.h) or those of MoeLayer. `sparse`
  // is null in a dense block.
  FeedForward(const std::string& prefix, const ModelConfig& config, int64_t block,
              const SparseParts* sparse, ParameterFactory& factory);

  // x_TD holds the tokens of row_ids_B's rows, row by row; the result has its precision. `record`:
  // see MoePass; unused in a dense block.
  at::Tensor Forward(const at::Tensor& x_TD, const at::Tensor& row_ids_B, const ForwardMode& mode,
                     std::vector<RoutingResult>* routing, MoeRecord* record) const;

 private:
  CapacityConfig CapacityOf(const ForwardMode& mode) const;
  // In training, if there is any, in a network whose rows are the tokens of row_ids_B.
  InnerDropout DropoutOf(double probability, const at::Tensor& x_TD, const at::Tensor& row_ids_B,
                         const ForwardMode& mode) const;

  ModelConfig config_;
  int64_t block_;
  GroupedFfnWeights dense_;  // a dense block's, as one group
  std::unique_ptr<MoeLayer> moe_;
};

}  // namespace hypermoe
