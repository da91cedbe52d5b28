#include "model/gpt2.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <string>

#include "kernels/keyed_dropout.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "model/config_values.h"
#include "model/recomputed_block.h"
#include "model/transformer_block.h"

namespace hypermoe {

Gpt2::Gpt2(const ModelConfig& model, const HyperConfig& hyper, uint64_t seed, TensorChoice tensors,
           std::shared_ptr<TokenDispatcher> dispatcher)
    : config_(model), tensors_(tensors), sparse_layers_(SparseLayers(model)) {
  TORCH_CHECK(sparse_layers_.empty() || dispatcher != nullptr,
              "a sparse model needs a token dispatcher");
  ParameterFactory factory(seed, at::dtype(tensors.parameters).device(tensors.device),
                           &parameters_);
  const Init embedding = Init::Normal(model.init_std());
  wte_VD_ = factory.Make("wte.weight", {model.vocab_size(), model.hidden_size()}, embedding);
  wpe_SD_ = factory.Make("wpe.weight", {model.sequence_length(), model.hidden_size()}, embedding);
  SparseParts sparse;
  sparse.dispatcher = dispatcher;
  sparse.adapter_width = hyper.bottleneck_dim();
  if (model.kind() == ModelConfig::hyper) {
    hyper_ = std::make_unique<HyperNetwork>(hyper, model, sparse_layers_,
                                            dispatcher->local_experts(), factory);
    sparse.hyper = hyper_.get();
  }
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    const bool is_sparse =
        std::find(sparse_layers_.begin(), sparse_layers_.end(), layer) != sparse_layers_.end();
    blocks_.push_back(
        std::make_unique<TransformerBlock>(model, layer, is_sparse ? &sparse : nullptr, factory));
    if (is_sparse) ++sparse.sparse_index;
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
  if (hyper_ != nullptr) hyper_->Prepare();
  at::Tensor x_TD = Embed(batch, mode);
  for (const auto& block : blocks_) {
    x_TD = mode.recompute ? ForwardRecomputed(*block, x_TD, batch.row_ids_B, mode, &output.routing)
                          : block->Forward(x_TD, batch.row_ids_B, mode, &output.routing);
  }
  if (mode.cache != nullptr) mode.cache->length += batch.input_ids_BS.size(1);
  x_TD = LayerNorm(x_TD, ln_f_weight_, ln_f_bias_, config_.layer_norm_epsilon());
  output.logits_TV = LinearTransposed(x_TD, wte_VD_);
  return output;
}

void Gpt2::FinishBackward() {
  if (hyper_ != nullptr) hyper_->BackwardThroughGeneration();
}

void Gpt2::ParametersChanged() {
  if (hyper_ != nullptr) hyper_->Invalidate();
}

}  // namespace hypermoe
