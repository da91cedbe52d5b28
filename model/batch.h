// The rows of one micro-batch that a rank works on.
//
// Legend: B rows of this rank (may be 0), S positions of a row.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

struct Batch {
  at::Tensor input_ids_BS;  // int64, each below the vocabulary size
  // int64: the id that position s predicts (the next token; already shifted), or kIgnoredLabel.
  at::Tensor labels_BS;
  // int64: the row's number within the global batch of the step, the same at every layout. Keys
  // random numbers.
  at::Tensor row_ids_B;

  // A batch to generate from has no labels.
  Batch To(at::Device device) const {
    return {input_ids_BS.to(device), labels_BS.defined() ? labels_BS.to(device) : labels_BS,
            row_ids_B.to(device)};
  }
};

// A label that counts neither in the loss nor in its divisor.
constexpr long kIgnoredLabel = -100;

}  // namespace hypermoe
