#include "model/switch_stack.h"

#include <cmath>
#include <optional>
#include <string>

#include "kernels/keyed_dropout.h"
#include "kernels/relative_position_bias.h"
#include "kernels/rms_norm.h"
#include "model/recomputed_block.h"

namespace hypermoe {
namespace {

std::string NameOf(Stack stack) { return stack == Stack::kEncoder ? "encoder" : "decoder"; }

// What goes through the blocks, or is there for all of them, and has a gradient.
std::vector<at::Tensor> InputsOf(const at::Tensor& x_TD, const SwitchPass& pass) {
  std::vector<at::Tensor> inputs = {x_TD, pass.bias_HSL};
  if (pass.encoded_TD.defined()) inputs.push_back(pass.encoded_TD);
  return inputs;
}

// A pass over a block with other inputs in place of its own.
BlockPass PassOver(const SwitchBlock& block, const SwitchPass& pass) {
  return [&block, pass](const std::vector<at::Tensor>& inputs, std::vector<RoutingResult>* routing,
                        MoeRecord* record) {
    SwitchPass own = pass;
    own.bias_HSL = inputs[1];
    if (inputs.size() > 2) own.encoded_TD = inputs[2];
    return block.Forward(inputs[0], own, routing, record);
  };
}

}  // namespace

SwitchStack::SwitchStack(const ModelConfig& config, Stack stack, const SparseBlocks& sparse,
                         ParameterFactory& factory)
    : config_(config), stack_(stack) {
  const bool encoder = stack == Stack::kEncoder;
  const int64_t first = encoder ? 0 : EncoderBlocks(config),
                count = encoder ? EncoderBlocks(config) : DecoderBlocks(config);
  const double std =
      config.initializer_factor() / std::sqrt(static_cast<double>(config.hidden_size()));
  relative_bias_ =
      factory.Make(NameOf(stack) + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                   {config.relative_buckets(), config.num_heads()}, Init::Normal(std));
  for (int64_t block = first; block < first + count; ++block) {
    const std::optional<SparseParts> parts = sparse.PartsOf(block);
    blocks_.push_back(std::make_unique<SwitchBlock>(
        config, block, parts.has_value() ? &*parts : nullptr, factory));
  }
  final_norm_D_ = factory.Make(NameOf(stack) + ".final_layer_norm.weight", {config.hidden_size()},
                               Init::Constant(1));
}

at::Tensor SwitchStack::Forward(const at::Tensor& x_TD, SwitchPass pass,
                                std::vector<RoutingResult>* routing) const {
  pass.bias_HSL = BiasOf(pass);
  at::Tensor y_TD = Dropout(x_TD, "embedding", pass);
  for (const auto& block : blocks_) {
    y_TD = pass.mode.recompute
               ? ForwardRecomputed(PassOver(*block, pass), InputsOf(y_TD, pass), routing)
               : block->Forward(y_TD, pass, routing, nullptr);
  }
  return Dropout(RmsNorm(y_TD, final_norm_D_, config_.layer_norm_epsilon()), "output", pass);
}

at::Tensor SwitchStack::BiasOf(const SwitchPass& pass) const {
  const bool decoder = stack_ == Stack::kDecoder;
  const int64_t past = decoder && pass.mode.cache != nullptr ? pass.mode.cache->length : 0;
  return RelativePositionBias(relative_bias_, pass.positions, past + pass.positions, past,
                              /*bidirectional=*/!decoder, config_.relative_max_distance());
}

at::Tensor SwitchStack::Dropout(const at::Tensor& x_TD, const char* what,
                                const SwitchPass& pass) const {
  return KeyedDropout(x_TD, pass.mode.training ? config_.dropout() : 0.0,
                      pass.mode.key.Derive(NameOf(stack_)).Derive(what), pass.row_ids_B);
}

}  // namespace hypermoe
