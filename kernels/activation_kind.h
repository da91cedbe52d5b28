// Names of activation functions, for code that LibTorch's headers are too slow for.
#pragma once

namespace hypermoe {

enum class Activation {
  kGeluTanh,  // GPT-2's gelu_new: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kGelu,      // x Phi(x)
  kRelu,
  kSilu,  // x / (1 + exp(-x))
};

}  // namespace hypermoe
