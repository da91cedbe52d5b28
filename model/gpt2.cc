#include "model/gpt2.h"

#include <ATen/TensorOperators.h>

#include <optional>
#include <utility>

#include "kernels/keyed_dropout.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "model/config_values.h"
#include "model/recomputed_block.h"
#include "model/sparse_blocks.h"
#include "model/transformer_block.h"

namespace hypermoe {

Gpt2::Gpt2(const ModelConfig& model, const HyperConfig& hyper, uint64_t seed, TensorChoice tensors,
           std::shared_ptr<TokenDispatcher> dispatcher)
    : LanguageModel(model, tensors) {
  ParameterFactory factory(seed, at::dtype(tensors.parameters).device(tensors.device),
                           &parameters_);
  const Init embedding = Init::Normal(model.init_std());
  wte_VD_ = factory.Make("wte.weight", {model.vocab_size(), model.hidden_size()}, embedding);
  wpe_SD_ = factory.Make("wpe.weight", {model.sequence_length(), model.hidden_size()}, embedding);
  sparse_ = std::make_unique<SparseBlocks>(model, hyper, std::move(dispatcher), factory);
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    const std::optional<SparseParts> sparse = sparse_->PartsOf(layer);
    blocks_.push_back(std::make_unique<TransformerBlock>(
        model, layer, sparse.has_value() ? &*sparse : nullptr, factory));
  }
  ln_f_weight_ = factory.Make("ln_f.weight", {model.hidden_size()}, Init::Constant(1));
  ln_f_bias_ = factory.Make("ln_f.bias", {model.hidden_size()}, Init::Constant(0));
}

Gpt2::~Gpt2() = default;

at::Tensor Gpt2::Embed(const Batch& batch, const ForwardMode& mode) const {
  const int64_t past = mode.cache == nullptr ? 0 : mode.cache->length,
                positions = batch.input_ids_BS.size(1);
  TORCH_CHECK(past + positions <= config_.sequence_length(), "sequence of ", past + positions,
              " tokens is longer than model.sequence_length (", config_.sequence_length(), ")");
  const at::Tensor tokens_BSD = EmbeddingRows(wte_VD_, batch.input_ids_BS);
  const at::Tensor x_BSD =
      (tokens_BSD + wpe_SD_.narrow(0, past, positions)).to(tensors_.activations);
  const double dropout = mode.training ? EmbeddingDropoutOf(config_) : 0.0;
  return KeyedDropout(x_BSD.view({-1, config_.hidden_size()}), dropout,
                      mode.key.Derive("embedding"), batch.row_ids_B);
}

ModelOutput Gpt2::Forward(const Batch& batch, const ForwardMode& mode) {
  ModelOutput output;
  if (mode.cache != nullptr && mode.cache->keys.empty()) {
    mode.cache->keys.resize(blocks_.size());
    mode.cache->values.resize(blocks_.size());
  }
  sparse_->Prepare();
  at::Tensor x_TD = Embed(batch, mode);
  for (const auto& block : blocks_) {
    const BlockPass pass = [&block = *block, row_ids_B = batch.row_ids_B, mode](
                               const std::vector<at::Tensor>& inputs,
                               std::vector<RoutingResult>* routing, MoeRecord* record) {
      return block.Forward(inputs[0], row_ids_B, mode, routing, record);
    };
    x_TD = mode.recompute ? ForwardRecomputed(pass, {x_TD}, &output.routing)
                          : pass({x_TD}, &output.routing, nullptr);
  }
  if (mode.cache != nullptr) mode.cache->length += batch.input_ids_BS.size(1);
  x_TD = LayerNorm(x_TD, ln_f_weight_, ln_f_bias_, config_.layer_norm_epsilon());
  output.logits_TV = LinearTransposed(x_TD, wte_VD_);
  return output;
}

}  // namespace hypermoe
