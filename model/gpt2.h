// GPT-2 (pre-norm blocks, learned positions, tanh GELU, head tied to the token embedding), whose
// feed-forward sub-layers may be mixtures of experts, plain or with HyperExperts. Parameter names
// are Hugging Face's (h.0.attn.c_attn.weight and so on), matrices [in, out].
//
// Legend: B rows of this rank, S positions, T = B * S tokens, D width, V vocabulary, H heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "configs/run.pb.h"
#include "kernels/keyed_random.h"
#include "model/batch.h"
#include "model/hyper_network.h"
#include "model/router.h"
#include "parallel/parameter.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

class TransformerBlock;

// Keys and values of the positions seen so far, by block: [B,H,length,C] each. Starts empty.
struct KeyValueCache {
  std::vector<at::Tensor> keys, values;
  int64_t length = 0;
};

// What a forward pass depends on beside parameters and tokens.
struct ForwardMode {
  bool training = false;           // dropout acts
  bool recompute = false;          // blocks: see recomputed_block.h; gradients must be enabled
  RandomKey key;                   // of this step; only looked at in training
  KeyValueCache* cache = nullptr;  // append to and attend to these positions (decoding)
};

struct ModelOutput {
  at::Tensor logits_TV;
  std::vector<RoutingResult> routing;  // by sparse layer
};

// What tensors are made of.
struct TensorChoice {
  at::ScalarType parameters = at::kFloat;   // and their gradients
  at::ScalarType activations = at::kFloat;  // and matrix products; the router's and statistics of
                                            // norms have that of parameters
  at::Device device = at::kCPU;
};

class Gpt2 {
 public:
  // Makes all parameters, keyed by `seed`. The dispatcher (over model.num_experts experts) decides
  // which experts are held here; null for kind dense. Nothing is communicated.
  Gpt2(const ModelConfig& model, const HyperConfig& hyper, uint64_t seed, TensorChoice tensors,
       std::shared_ptr<TokenDispatcher> dispatcher);
  ~Gpt2();

  // Collective over the expert group (all kinds but dense), in backward too: every rank calls it
  // equally often, with zero rows too. At most sequence_length positions, cached ones included.
  ModelOutput Forward(const Batch& batch, const ForwardMode& mode);

  // Call after the last backward of a step, before gradients are reduced: completes the
  // hypernetwork's gradients.
  void FinishBackward();
  // Call after parameters have changed by anything but the constructor.
  void ParametersChanged();

  std::vector<Parameter>& parameters() { return parameters_; }
  // Where the parameters are, and batches must be.
  at::Device device() const { return tensors_.device; }
  const std::vector<int64_t>& sparse_layers() const { return sparse_layers_; }
  // Null unless kind is hyper.
  const HyperNetwork* hyper_network() const { return hyper_.get(); }

 private:
  at::Tensor Embed(const Batch& batch, const ForwardMode& mode) const;

  ModelConfig config_;
  TensorChoice tensors_;
  std::vector<Parameter> parameters_;
  std::vector<int64_t> sparse_layers_;
  at::Tensor wte_VD_, wpe_SD_, ln_f_weight_, ln_f_bias_;
  std::unique_ptr<HyperNetwork> hyper_;
  std::vector<std::unique_ptr<TransformerBlock>> blocks_;
};

// Sum of -log softmax(logits)[label] over the labels that count, divided by `divisor` (the number
// of counted labels of the whole batch, over all ranks and micro-batches). 0 without labels.
// Scalar, at least float32, differentiable; backward overwrites logits_TV
// (kernels/cross_entropy.h).
at::Tensor CrossEntropy(const at::Tensor& logits_TV, const at::Tensor& labels_BS, double divisor);

// The blocks that are sparse under `config`, ascending; empty for kind dense.
std::vector<int64_t> SparseLayers(const ModelConfig& config);

}  // namespace hypermoe
