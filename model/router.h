// Routers: which experts a token goes to, and with what weight.
//
//   switch      logits = x w_gate (Switch Transformer, arXiv:2101.03961, Eq. 1-2), + a bias if the
//               model has one
//   noisy_topk  in training plus N(0,1) (softplus(x w_noise) + 0.01) (Shazeer et al. 2017,
//               arXiv:1701.06538, Eq. 4-5; HyperMoE, arXiv:2402.12656, Eq. 2)
// Both: probs = softmax(logits) over all experts, the top_k largest are chosen, each with its
// probability as gate, or with that divided by the sum of the chosen ones. With
// model.router_choice_rounded, experts of bfloat16 inputs are chosen by their probabilities rounded
// to bfloat16, which are more often equal; the gates are those of the probabilities as they are.
//
// Legend: T tokens, D width, N experts, K choices of a token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "configs/run.pb.h"
#include "kernels/keyed_random.h"
#include "model/config_values.h"
#include "model/parameter_factory.h"

namespace hypermoe {

struct RoutingResult {
  at::Tensor logits_TN;      // as they go into the softmax; differentiable
  at::Tensor probs_TN;       // at least float32; differentiable
  at::Tensor expert_ids_TK;  // int64; the likeliest first, the lower id where probabilities are
                             // equal
  at::Tensor gate_TK;        // differentiable
  at::Tensor log_sum_T;      // logsumexp of the logits; differentiable
  // Probability that another draw of its noise would choose the expert (Shazeer, Eq. 8-9);
  // differentiable; undefined where there was no noise.
  at::Tensor load_TN;
  at::Tensor taken_TK;  // bool: the chosen expert has room for the token; undefined: for all
  // Set by the layer where it was asked to measure and has HyperExperts that can be told from the
  // experts: float64 [2], the sums of squares of what the experts (gates included) and the
  // HyperExperts add to the tokens that were worked on here, on the device.
  at::Tensor squares_2;
  // Set by the layer: how many rows the tokens are of, and in which stack it is.
  int64_t num_rows = 0;
  Stack stack = Stack::kDecoder;
};

// Noise in training.
struct RouterNoise {
  bool gate_noise = false;  // of noisy_topk
  double jitter = 0;        // amplitude of a multiplicative noise on what the router sees
                            // (arXiv:2101.03961, Sec. 2.2); 0: none
  RandomKey key;            // of both; without them the rest is not looked at
  at::Tensor row_ids_B;     // int64: global rows, see KeyedJitter
};

// x_TD times the jitter of the noise; itself where there is none.
at::Tensor Jittered(const at::Tensor& x_TD, const RouterNoise& noise);

class Router {
 public:
  // Parameters: MakeRouterMatrix, MakeRouterBias, and for noisy_topk prefix + "w_noise" [D,N],
  // which starts at zero.
  Router(const std::string& prefix, const ModelConfig& config, ParameterFactory& factory);
  // In the precision of the matrix, whatever that of x_TD. Jitter acts on a copy: experts see x_TD
  // itself. `chosen_TK`: the experts of an earlier pass over the same x_TD, which are then taken
  // instead of the likeliest.
  RoutingResult Forward(const at::Tensor& x_TD, const RouterNoise& noise,
                        const at::Tensor& chosen_TK = {}) const;

 private:
  int64_t top_k_;
  bool renormalize_, choice_rounded_;
  at::Tensor w_gate_DN_, bias_N_, w_noise_DN_;
};

}  // namespace hypermoe
