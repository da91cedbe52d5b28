// What a language model says follows a sequence: the function that BeamSearch asks.
//
// Legend: B rows of this rank, S positions of the encoder, N sequences, L positions of them, V
// vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/language_model.h"

namespace hypermoe {

class ModelLogits {
 public:
  // `rows`: row_ids_B, and with `encoder` what it reads, anywhere. `cached`: keys and values of
  // earlier positions are kept, and no capacity limits the decoder; otherwise every call reads
  // whole sequences, and one with an encoder is limited as in evaluation. Without an encoder the
  // sequences must fit into the model's positions.
  ModelLogits(LanguageModel& model, const Batch& rows, bool encoder, bool cached);

  // NextLogits of beam_search.h: [N,V] on the model's device. Collective, as Forward is.
  at::Tensor operator()(const at::Tensor& ids_NL, const at::Tensor& parents_N);

 private:
  void SelectRows(const at::Tensor& parents_N);

  LanguageModel& model_;
  Batch rows_;  // one for each sequence
  const bool encoder_, cached_;
  KeyValueCache cache_;
};

}  // namespace hypermoe
