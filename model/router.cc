#include "model/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <limits>
#include <numbers>
#include <vector>

#include "kernels/keyed_noise.h"
#include "kernels/route_tokens.h"
#include "model/ffn_parameters.h"

namespace hypermoe {
namespace {

// Shazeer's epsilon: noise never vanishes, however w_noise develops.
constexpr double kLeastNoise = 0.01;

// The k largest of every row, best first; argmax takes the first of equal ones, which topk does not
// promise.
at::Tensor LargestIds(const at::Tensor& values_TN, int64_t k) {
  at::Tensor left_TN = values_TN.clone();
  std::vector<at::Tensor> ids;
  for (int64_t r = 0; r < k; ++r) {
    const at::Tensor best_T1 = at::argmax(left_TN, 1, /*keepdim=*/true);
    left_TN.scatter_(1, best_T1, -std::numeric_limits<double>::infinity());
    ids.push_back(best_T1.squeeze(1));
  }
  return at::stack(ids, 1);
}

// Phi((clean - threshold) / std), where the threshold is what a noisy logit must exceed: the k-th
// largest of the others. Undefined if all experts are chosen whatever the noise.
at::Tensor LoadProbabilities(const at::Tensor& clean_TN, const at::Tensor& noisy_TN,
                             const at::Tensor& std_TN, int64_t k) {
  if (k >= noisy_TN.size(1)) return {};
  const at::Tensor ids_TK = LargestIds(noisy_TN.detach(), k + 1);
  const at::Tensor sorted_TK = at::gather(noisy_TN, 1, ids_TK);
  const at::Tensor last_in_T1 = sorted_TK.narrow(1, k - 1, 1),
                   first_out_T1 = sorted_TK.narrow(1, k, 1);
  const at::Tensor is_in_TN = noisy_TN.detach().ge(last_in_T1.detach());
  const at::Tensor threshold_TN = at::where(is_in_TN, first_out_T1, last_in_T1);
  return (at::erf((clean_TN - threshold_TN) / std_TN * (1.0 / std::numbers::sqrt2)) + 1.0) * 0.5;
}

// By probabilities that are rounded to bfloat16.
at::Tensor RoundedChoice(const at::Tensor& logits_TN, int64_t k) {
  const at::NoGradGuard no_grad;
  const at::Tensor probs_TN = RouteTokens(logits_TN, k, /*renormalize=*/false).probs_TN;
  return LargestIds(probs_TN.to(at::kBFloat16).to(at::kFloat), k);
}

}  // namespace

at::Tensor Jittered(const at::Tensor& x_TD, const RouterNoise& noise) {
  return KeyedJitter(x_TD, noise.jitter, noise.key.Derive("jitter"), noise.row_ids_B);
}

Router::Router(const std::string& prefix, const ModelConfig& config, ParameterFactory& factory)
    : top_k_(config.top_k()),
      renormalize_(config.renormalize()),
      choice_rounded_(config.router_choice_rounded()),
      w_gate_DN_(MakeRouterMatrix(prefix, config, factory)),
      bias_N_(MakeRouterBias(prefix, config, factory)) {
  if (config.router() == ModelConfig::noisy_topk) {
    w_noise_DN_ = factory.Make(prefix + "w_noise", {config.hidden_size(), config.num_experts()},
                               Init::Constant(0));
  }
}

RoutingResult Router::Forward(const at::Tensor& x_TD, const RouterNoise& noise,
                              const at::Tensor& chosen_TK) const {
  RoutingResult result;
  const at::Tensor x = Jittered(x_TD.to(w_gate_DN_.scalar_type()), noise);
  result.logits_TN = bias_N_.defined() ? at::addmm(bias_N_, x, w_gate_DN_) : at::mm(x, w_gate_DN_);
  if (noise.gate_noise && w_noise_DN_.defined()) {
    const at::Tensor clean_TN = result.logits_TN;
    const at::Tensor std_TN = at::softplus(at::mm(x, w_noise_DN_)) + kLeastNoise;
    result.logits_TN =
        clean_TN +
        KeyedNormalLike(clean_TN, noise.key.Derive("gate noise"), noise.row_ids_B) * std_TN;
    result.load_TN = LoadProbabilities(clean_TN, result.logits_TN, std_TN, top_k_);
  }
  at::Tensor chosen = chosen_TK;
  if (!chosen.defined() && choice_rounded_ && x_TD.scalar_type() == at::kBFloat16) {
    chosen = RoundedChoice(result.logits_TN, top_k_);
  }
  const TokenRoutes routes = RouteTokens(result.logits_TN, top_k_, renormalize_, chosen);
  result.probs_TN = routes.probs_TN;
  result.expert_ids_TK = routes.expert_ids_TK;
  result.gate_TK = routes.gate_TK;
  result.log_sum_T = routes.log_sum_T;
  return result;
}

}  // namespace hypermoe
