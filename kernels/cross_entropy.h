// Cross-entropy of a large vocabulary, with no more than the logits in memory.
//
// Legend: T tokens, V vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

namespace hypermoe {

// Sum over tokens of -log softmax(logits_TV)[label], divided by `divisor`; tokens with the label
// `ignored` count nothing. Scalar of at least float32, in which it is computed; differentiable in
// logits_TV (float32, float64 or bfloat16; contiguous). Backward overwrites logits_TV by its
// gradient instead of making a tensor of its size: nothing may read it afterwards. labels_T: int64,
// below V, on the device of the logits. The same bits on every run.
//
// Throws c10::Error for what does not fit together, and for another label, which on a GPU only the
// kernel sees: there the loss is NaN then, and so is the gradient of that token's logits.
at::Tensor SumCrossEntropy(const at::Tensor& logits_TV, const at::Tensor& labels_T, double divisor,
                           int64_t ignored);

}  // namespace hypermoe
