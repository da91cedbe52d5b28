// What SumCrossEntropy's implementation for GPUs is given (cross_entropy.h). Free of LibTorch.
#pragma once

#include <cstdint>

#include "kernels/element_type.h"

namespace hypermoe {

// Contiguous arrays on the GPU. "Precise" is float64 for float64 logits, else float32.
struct CrossEntropyArguments {
  ElementType element;    // of the logits
  const int64_t* labels;  // [tokens]
  int64_t ignored;        // the label of tokens that count nothing
  int64_t tokens, vocabulary;
};

// On the current stream.
namespace cuda {

// lse: log(sum of exp(logits)) of each token, of those that count; loss: lse - logits[label], or 0.
// Both [tokens], precise.
void CrossEntropy(const CrossEntropyArguments& in, const void* logits, void* lse, void* loss);

// Overwrites the logits by factor (softmax(logits) - one_hot(label)), or 0. factor: one element,
// precise.
void CrossEntropyBackward(const CrossEntropyArguments& in, const void* lse, const void* factor,
                          void* logits);

}  // namespace cuda
}  // namespace hypermoe
