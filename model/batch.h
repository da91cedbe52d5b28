// The rows of one micro-batch that a rank works on.
//
// Legend: B rows of this rank (may be 0), S positions of a row, T positions of the decoder.
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
  // Of an encoder-decoder model alone. bool: the positions of input_ids that may be attended to;
  // undefined: all. The labels are then [B,T].
  at::Tensor attention_mask_BS = {};
  // int64: what the decoder reads; undefined: the labels, shifted right.
  at::Tensor decoder_ids_BT = {};

  // A batch to generate from has no labels. To a GPU without waiting for what it does.
  Batch To(at::Device device) const {
    const auto move = [device](const at::Tensor& tensor) {
      if (!tensor.defined() || tensor.device() == device) return tensor;
      return device.is_cpu() ? tensor.cpu() : tensor.pin_memory().to(device, /*non_blocking=*/true);
    };
    return {move(input_ids_BS), move(labels_BS), move(row_ids_B), move(attention_mask_BS),
            move(decoder_ids_BT)};
  }
};

// A label that counts neither in the loss nor in its divisor.
constexpr long kIgnoredLabel = -100;

}  // namespace hypermoe
