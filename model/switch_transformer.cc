#include "model/switch_transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <cmath>
#include <utility>

#include "kernels/linear.h"
#include "model/sparse_blocks.h"

namespace hypermoe {

SwitchTransformer::SwitchTransformer(const ModelConfig& model, const HyperConfig& hyper,
                                     uint64_t seed, TensorChoice tensors,
                                     std::shared_ptr<TokenDispatcher> dispatcher)
    : LanguageModel(model, tensors) {
  ParameterFactory factory(seed, at::dtype(tensors.parameters).device(tensors.device),
                           &parameters_);
  MakeEmbeddings(factory);
  sparse_ = std::make_unique<SparseBlocks>(model, hyper, std::move(dispatcher), factory);
  encoder_.emplace(model, Stack::kEncoder, *sparse_, factory);
  decoder_.emplace(model, Stack::kDecoder, *sparse_, factory);
}

void SwitchTransformer::MakeEmbeddings(ParameterFactory& factory) {
  const auto make = [&](const char* name) {
    return factory.Make(name, {config_.vocab_size(), config_.hidden_size()},
                        Init::Normal(config_.initializer_factor()));
  };
  if (config_.tie_embeddings()) {
    encoder_embedding_VD_ = decoder_embedding_VD_ = head_VD_ = make("shared.weight");
    return;
  }
  encoder_embedding_VD_ = make("encoder.embed_tokens.weight");
  decoder_embedding_VD_ = make("decoder.embed_tokens.weight");
  head_VD_ = make("lm_head.weight");
}

// The labels, shifted right: position t reads what the ones before it predict.
at::Tensor SwitchTransformer::DecoderIds(const Batch& batch) const {
  if (batch.decoder_ids_BT.defined()) return batch.decoder_ids_BT;
  const at::Tensor& labels = batch.labels_BS;
  TORCH_CHECK(labels.defined(), "an encoder-decoder model needs labels or decoder ids");
  const at::Tensor start_B1 =
      at::full({labels.size(0), 1}, config_.decoder_start_id(), labels.options());
  const at::Tensor shifted_BT = at::cat({start_B1, labels.narrow(1, 0, labels.size(1) - 1)}, 1);
  return shifted_BT.masked_fill(shifted_BT.eq(kIgnoredLabel), config_.pad_id());
}

at::Tensor SwitchTransformer::Embed(const at::Tensor& weight_VD, const at::Tensor& ids) const {
  return EmbeddingRows(weight_VD, ids).to(tensors_.activations).view({-1, config_.hidden_size()});
}

ModelOutput SwitchTransformer::Forward(const Batch& batch, const ForwardMode& mode) {
  ModelOutput output;
  sparse_->Prepare();
  SwitchPass pass;
  pass.mode = mode;
  pass.row_ids_B = batch.row_ids_B;
  KeyValueCache* cache = mode.cache;
  if (cache == nullptr || cache->empty()) {
    pass.positions = pass.encoder_positions = batch.input_ids_BS.size(1);
    pass.attention_mask_BE = batch.attention_mask_BS;
    pass.encoded_TD =
        encoder_->Forward(Embed(encoder_embedding_VD_, batch.input_ids_BS), pass, &output.routing);
    if (cache != nullptr) {
      const auto blocks = static_cast<size_t>(config_.num_decoder_layers());
      for (auto* of_blocks :
           {&cache->keys, &cache->values, &cache->encoder_keys, &cache->encoder_values})
        of_blocks->resize(blocks);
      cache->attention_mask_BS = batch.attention_mask_BS;
    }
  } else {
    pass.attention_mask_BE = cache->attention_mask_BS;
  }
  const at::Tensor ids_BT = DecoderIds(batch);
  pass.positions = ids_BT.size(1);
  at::Tensor x_TD = decoder_->Forward(Embed(decoder_embedding_VD_, ids_BT), pass, &output.routing);
  if (cache != nullptr) cache->length += ids_BT.size(1);
  if (config_.tie_embeddings()) x_TD = x_TD / std::sqrt(static_cast<double>(config_.hidden_size()));
  output.logits_TV = LinearTransposed(x_TD, head_VD_);
  return output;
}

}  // namespace hypermoe
