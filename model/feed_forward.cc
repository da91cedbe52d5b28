#include "model/feed_forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>

#include "model/config_values.h"
#include "model/ffn_parameters.h"

namespace hypermoe {
namespace {

// Row times length of a row + position: the same at every layout.
at::Tensor TokenIds(int64_t tokens, const at::Tensor& row_ids_B) {
  const int64_t rows = row_ids_B.numel();
  const int64_t positions = rows == 0 ? 0 : tokens / rows;
  return (row_ids_B.unsqueeze(1) * positions + at::arange(positions, row_ids_B.options()))
      .flatten();
}

}  // namespace

FeedForward::FeedForward(const std::string& prefix, const ModelConfig& config, int64_t block,
                         const SparseParts* sparse, ParameterFactory& factory)
    : config_(config), block_(block) {
  if (sparse != nullptr) {
    moe_ = std::make_unique<MoeLayer>(prefix, config, *sparse, factory);
  } else {
    dense_ = MakeDenseFfn(prefix, config, factory);
  }
}

// Generation (with a cache) takes every token; but an encoder reads all of its input at once, in
// generation too.
CapacityConfig FeedForward::CapacityOf(const ForwardMode& mode) const {
  if (mode.training) return config_.training_capacity();
  const bool generates = mode.cache != nullptr && StackOf(config_, block_) == Stack::kDecoder;
  return generates ? CapacityConfig() : config_.evaluation_capacity();
}

InnerDropout FeedForward::DropoutOf(double probability, const at::Tensor& x_TD,
                                    const at::Tensor& row_ids_B, const ForwardMode& mode) const {
  InnerDropout dropout;
  if (!mode.training || probability == 0) return dropout;
  dropout.probability = probability;
  dropout.key = mode.key.Derive(static_cast<uint64_t>(block_)).Derive("inner feed-forward");
  dropout.token_ids_R = TokenIds(x_TD.size(0), row_ids_B);
  return dropout;
}

at::Tensor FeedForward::Forward(const at::Tensor& x_TD, const at::Tensor& row_ids_B,
                                const ForwardMode& mode, std::vector<RoutingResult>* routing,
                                MoeRecord* record) const {
  if (moe_ == nullptr) {
    return GroupedFfn(x_TD, {x_TD.size(0)}, dense_, ActivationOf(config_),
                      DropoutOf(DenseInnerDropoutOf(config_), x_TD, row_ids_B, mode));
  }
  MoePass pass;
  pass.num_rows = row_ids_B.numel();
  pass.noise.gate_noise = mode.training;
  pass.noise.jitter = mode.training ? config_.router_jitter() : 0.0;
  pass.noise.key = mode.key.Derive(static_cast<uint64_t>(block_)).Derive("router");
  pass.noise.row_ids_B = row_ids_B;
  pass.capacity = CapacityOf(mode);
  pass.dropout = DropoutOf(ExpertInnerDropoutOf(config_), x_TD, row_ids_B, mode);
  pass.measure = mode.measure;
  pass.record = record;
  return moe_->Forward(x_TD, pass, routing);
}

}  // namespace hypermoe
