// GPT-2 (pre-norm blocks, learned positions, tanh GELU, head tied to the token embedding), whose
// feed-forward sub-layers may be mixtures of experts, plain or with HyperExperts. Parameter names
// are Hugging Face's (h.0.attn.c_attn.weight and so on), matrices [in, out].
//
// Legend: S positions, D width, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

class TransformerBlock;

class Gpt2 : public LanguageModel {
 public:
  // Makes all parameters, keyed by `seed`. The dispatcher (over model.num_experts experts) decides
  // which experts are held here; null for kind dense. Nothing is communicated.
  Gpt2(const ModelConfig& model, const HyperConfig& hyper, uint64_t seed, TensorChoice tensors,
       std::shared_ptr<TokenDispatcher> dispatcher);
  ~Gpt2() override;

  // At most sequence_length positions, cached ones included.
  ModelOutput Forward(const Batch& batch, const ForwardMode& mode) override;

 private:
  at::Tensor Embed(const Batch& batch, const ForwardMode& mode) const;

  at::Tensor wte_VD_, wpe_SD_, ln_f_weight_, ln_f_bias_;
  std::vector<std::unique_ptr<TransformerBlock>> blocks_;
};

}  // namespace hypermoe
