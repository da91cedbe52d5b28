// What RouteTokens' two implementations are given (route_tokens.h has the equations). Free of
// LibTorch, whose headers take nvcc 19 seconds a file.
#pragma once

#include <cstdint>

#include "kernels/element_type.h"

namespace hypermoe {

struct RouteTokensSizes {
  ElementType element;  // float32 or float64, of all but the ids
  int64_t tokens, experts, choices;
  bool renormalize;
};

// Contiguous arrays on the device of the implementation.
struct RouteTokensArguments {
  const void* logits;     // [tokens, experts]
  const int64_t* chosen;  // [tokens, choices]; null: the likeliest
  void* probs;            // [tokens, experts]
  void* gate;             // [tokens, choices]
  void* log_sum;          // [tokens]
  int64_t* ids;           // [tokens, choices], written unless there are chosen ones
};

// The same of the gradients; null: 0. That of the logits is written whole.
struct RouteTokensGradients {
  const void* probs;   // [tokens, experts], as forward made them
  const int64_t* ids;  // [tokens, choices]
  const void *grad_probs, *grad_gate, *grad_log_sum;
  void* grad_logits;
};

namespace cpu {
void RouteTokens(const RouteTokensSizes& sizes, const RouteTokensArguments& in);
void RouteTokensBackward(const RouteTokensSizes& sizes, const RouteTokensGradients& in);
}  // namespace cpu

// On the current stream.
namespace cuda {
void RouteTokens(const RouteTokensSizes& sizes, const RouteTokensArguments& in);
void RouteTokensBackward(const RouteTokensSizes& sizes, const RouteTokensGradients& in);
}  // namespace cuda

}  // namespace hypermoe
