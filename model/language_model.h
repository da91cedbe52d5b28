// What a trainer, an evaluator or a decoder knows of a language model.
//
// Legend: B rows of this rank, S positions, T tokens whose next one is predicted, V vocabulary, H
// heads, C head width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "configs/run.pb.h"
#include "kernels/keyed_random.h"
#include "model/batch.h"
#include "model/router.h"
#include "parallel/parameter.h"

namespace hypermoe {

class HyperNetwork;
class SparseBlocks;

// What a decoder has seen so far, for B rows. Starts empty.
struct KeyValueCache {
  // Of the positions it has read, by block (of an encoder-decoder: by block of the decoder):
  // [B,H,length,C] each.
  std::vector<at::Tensor> keys, values;
  int64_t length = 0;
  // Of an encoder-decoder also the encoder's output, as keys and values of each block of the
  // decoder, [B,H,S,C], and where it may be attended to (Batch::attention_mask_BS). The first pass
  // with a cache runs the encoder and fills them; later ones do not look at Batch::input_ids_BS.
  std::vector<at::Tensor> encoder_keys, encoder_values;
  at::Tensor attention_mask_BS;

  bool empty() const { return keys.empty(); }
  // Row i becomes a copy of what row rows_B[i] (int64) was: what beam search keeps of its beams.
  // There may be more or fewer rows afterwards.
  void SelectRows(const at::Tensor& rows_B);
};

// What a forward pass depends on beside parameters and tokens.
struct ForwardMode {
  bool training = false;           // dropout acts
  bool recompute = false;          // blocks: see recomputed_block.h; gradients must be enabled
  bool measure = false;            // RoutingResult::squares_2
  RandomKey key;                   // of this step; only looked at in training
  KeyValueCache* cache = nullptr;  // append to and attend to these positions (decoding): no
                                   // capacity limits the decoder then
};

struct ModelOutput {
  at::Tensor logits_TV;
  // By sparse layer; without those of an encoder that was not run.
  std::vector<RoutingResult> routing;
};

// What tensors are made of.
struct TensorChoice {
  at::ScalarType parameters = at::kFloat;   // and their gradients
  at::ScalarType activations = at::kFloat;  // and matrix products; the router's and statistics of
                                            // norms have that of parameters
  at::Device device = at::kCPU;
};

class LanguageModel {
 public:
  virtual ~LanguageModel();

  // Collective over the expert group (all kinds but dense), in backward too: every rank calls it
  // equally often, with zero rows too.
  virtual ModelOutput Forward(const Batch& batch, const ForwardMode& mode) = 0;

  // Call after the last backward of a step, before gradients are reduced: completes the
  // hypernetwork's gradients.
  void FinishBackward();
  // Call after parameters have changed by anything but the constructor.
  void ParametersChanged();

  std::vector<Parameter>& parameters() { return parameters_; }
  // Where the parameters are, and batches must be.
  at::Device device() const { return tensors_.device; }
  // Numbers of the sparse blocks (SparseLayers), ascending.
  const std::vector<int64_t>& sparse_layers() const;
  // Null unless kind is hyper.
  const HyperNetwork* hyper_network() const;

 protected:
  LanguageModel(const ModelConfig& config, TensorChoice tensors);

  ModelConfig config_;
  TensorChoice tensors_;
  // Both are filled by the constructor of the family.
  std::vector<Parameter> parameters_;
  std::unique_ptr<SparseBlocks> sparse_;
};

// Sum of -log softmax(logits)[label] over the labels that count, divided by `divisor` (the number
// of counted labels of the whole batch, over all ranks and micro-batches). 0 without labels.
// Scalar, at least float32, differentiable; backward overwrites logits_TV
// (kernels/cross_entropy.h).
at::Tensor CrossEntropy(const at::Tensor& logits_TV, const at::Tensor& labels_BS, double divisor);

}  // namespace hypermoe
