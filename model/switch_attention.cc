#include "model/switch_attention.h"

#include <cmath>

#include "kernels/linear.h"
#include "model/config_values.h"

namespace hypermoe {

SwitchAttention::SwitchAttention(const std::string& prefix, const ModelConfig& config,
                                 ParameterFactory& factory)
    : heads_(config.num_heads()), head_size_(HeadSize(config)) {
  const int64_t width = config.hidden_size(), inner = heads_ * head_size_;
  const auto make = [&](const char* name, at::IntArrayRef shape, int64_t fan_in) {
    const double std = config.initializer_factor() / std::sqrt(static_cast<double>(fan_in));
    return factory.Make(prefix + name + ".weight", shape, Init::Normal(std), ParameterGroup::kDense,
                        NamedAs::kTransposed);
  };
  // That of queries stands in for the scale that scores do not have.
  q_DE_ = make("q", {width, inner}, width * head_size_);
  k_DE_ = make("k", {width, inner}, width);
  v_DE_ = make("v", {width, inner}, width);
  o_ED_ = make("o", {inner, width}, inner);
}

at::Tensor SwitchAttention::Heads(const at::Tensor& x_TD, const at::Tensor& weight_DE, int64_t rows,
                                  int64_t positions) const {
  return Linear(x_TD, weight_DE, {}).view({rows, positions, heads_, head_size_}).transpose(1, 2);
}

SwitchAttention::KeysValues SwitchAttention::Project(const at::Tensor& source_TD, int64_t rows,
                                                     int64_t positions) const {
  return {Heads(source_TD, k_DE_, rows, positions), Heads(source_TD, v_DE_, rows, positions)};
}

at::Tensor SwitchAttention::Attend(const at::Tensor& x_TD, const KeysValues& source,
                                   const AttentionBias& bias, int64_t positions,
                                   const AttentionDropout& dropout) const {
  const at::Tensor q_BHSC = Heads(x_TD, q_DE_, source.keys_BHLC.size(0), positions);
  const at::Tensor attended_BHSC =
      RelativeAttention(q_BHSC, source.keys_BHLC, source.values_BHLC, bias, dropout);
  return Linear(attended_BHSC.transpose(1, 2).reshape({x_TD.size(0), heads_ * head_size_}), o_ED_,
                {});
}

}  // namespace hypermoe
