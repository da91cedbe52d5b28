#include "model/router.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/softmax.h>

#include "kernels/keyed_jitter.h"

namespace hypermoe {

Router::Router(const std::string& prefix, int64_t width, int64_t num_experts, double init_std,
               ParameterFactory& factory)
    : w_gate_DN_(factory.Make(prefix + "w_gate", {width, num_experts}, Init::Normal(init_std))) {}

RoutingResult Router::Forward(const at::Tensor& x_TD, const RouterNoise& noise,
                              const at::Tensor& chosen_T) const {
  RoutingResult result;
  const at::Tensor x = x_TD.to(w_gate_DN_.scalar_type());
  result.logits_TN = at::mm(KeyedJitter(x, noise.jitter, noise.key, noise.row_ids_B), w_gate_DN_);
  result.probs_TN = at::softmax(result.logits_TN, 1);
  result.expert_ids_T = chosen_T.defined() ? chosen_T : at::argmax(result.probs_TN.detach(), 1);
  result.gate_T = at::gather(result.probs_TN, 1, result.expert_ids_T.unsqueeze(1)).squeeze(1);
  return result;
}

}  // namespace hypermoe
