// T5 and Switch Transformer (arXiv:1910.10683, arXiv:2101.03961) as Hugging Face's
// switch_transformers computes them: an encoder and a decoder (switch_stack.h) whose feed-forward
// sub-layers may be mixtures of experts, plain or with HyperExperts. Parameter names are Hugging
// Face's (encoder.block.0.layer.0.SelfAttention.q.weight and so on).
//
// Embeddings: tied, one table shared.weight is that of encoder, decoder and head, and the decoder's
// output is divided by sqrt(D) before the head. Untied, encoder.embed_tokens.weight,
// decoder.embed_tokens.weight and lm_head.weight are three parameters, and nothing is divided.
// There is no shared.weight then: a folder that has it in place of either of the first two gives
// its values to both, and its gradient is the sum of theirs.
//
// Legend: B rows, S positions of the encoder, T of the decoder (in a pass with a cache, the new
// ones), D width, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "model/parameter_factory.h"
#include "model/switch_stack.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

class SwitchTransformer : public LanguageModel {
 public:
  // Makes all parameters, keyed by `seed`. The dispatcher (over model.num_experts experts) decides
  // which experts are held here; null for kind dense. Nothing is communicated.
  SwitchTransformer(const ModelConfig& model, const HyperConfig& hyper, uint64_t seed,
                    TensorChoice tensors, std::shared_ptr<TokenDispatcher> dispatcher);

  // Logits [B T, V]. Positions may be any number. With a cache that is empty, and without one, the
  // encoder reads batch.input_ids_BS; with one that is not, only the decoder runs, on
  // batch.decoder_ids_BT at the positions after those it has seen. Capacity limits the encoder
  // always, the decoder only without a cache.
  ModelOutput Forward(const Batch& batch, const ForwardMode& mode) override;

 private:
  void MakeEmbeddings(ParameterFactory& factory);
  at::Tensor DecoderIds(const Batch& batch) const;
  at::Tensor Embed(const at::Tensor& weight_VD, const at::Tensor& ids) const;

  at::Tensor encoder_embedding_VD_, decoder_embedding_VD_, head_VD_;
  std::optional<SwitchStack> encoder_, decoder_;
};

}  // namespace hypermoe
