// The Switch router (arXiv:2101.03961, Eq. 1-2): each token goes to the expert with the largest
// probability.
//
// Legend: T tokens, D width, N experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "kernels/keyed_random.h"
#include "model/parameter_factory.h"

namespace hypermoe {

struct RoutingResult {
  at::Tensor logits_TN;     // before the softmax; differentiable
  at::Tensor probs_TN;      // softmax over all experts, at least float32; differentiable
  at::Tensor expert_ids_T;  // int64; the lower id where probabilities are equal
  at::Tensor gate_T;        // the chosen expert's probability; differentiable
  at::Tensor taken_T;       // bool: the chosen expert has room for the token; undefined: for all
};

// Multiplicative noise on what the router sees, in training (arXiv:2101.03961, Sec. 2.2).
struct RouterNoise {
  double jitter = 0;  // amplitude; 0: none, and the rest is not looked at
  RandomKey key;
  at::Tensor row_ids_B;  // int64: global rows, see KeyedJitter
};

class Router {
 public:
  // Parameter: prefix + "w_gate" [D,N].
  Router(const std::string& prefix, int64_t width, int64_t num_experts, double init_std,
         ParameterFactory& factory);
  // In the precision of w_gate, whatever that of x_TD. The noise acts on a copy: experts see x_TD
  // itself. `chosen_T`: the experts of an earlier pass over the same x_TD, which are then taken
  // instead of the likeliest.
  RoutingResult Forward(const at::Tensor& x_TD, const RouterNoise& noise,
                        const at::Tensor& chosen_T = {}) const;

 private:
  at::Tensor w_gate_DN_;
};

}  // namespace hypermoe
