// The parameters of the hypernetwork and the equations that turn them into HyperExperts
// (arXiv:2402.12656, Sec. 3.2, Eq. 5-9). For a token with selected set A in sparse layer l, whose
// block has number g:
//   Eq. 5, 6  e = mean (agg sum: sum) of the embeddings S_j of the experts outside A (condition
//             selected: inside A; z one_minus_prob: of all, each times 1 - probability); 0 if there
//             is none. Condition weights: S_j is computed from expert j (model/weight_encoder.h)
//             p = W2 relu(W1 e + c1) + c2                       (condition hidden: p = x)
//             k = k_norm(k_act(W [p; layer embedding of g] + c))
//   Eq. 7     Down = reshape(W_D k + c_D, [D, A]),  Up = reshape(W_U k + c_U, [A, D])
//             gen_bias: b_d, b_u likewise linear in k
//   Eq. 8     Ehat(x) = relu(x Down + b_d) Up + b_u
//
// Legend: L sparse layers, N experts, K choices of a token, T tokens, M HyperExperts, D width, A
// bottleneck, q hidden_dim.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "configs/run.pb.h"
#include "model/config_values.h"
#include "model/parameter_factory.h"
#include "model/weight_encoder.h"

namespace hypermoe {

// M generated networks.
struct HyperExperts {
  at::Tensor down_MDA, up_MAD;
  at::Tensor down_offset_MA, up_offset_MD;  // undefined unless gen_bias
};

class HyperGenerator {
 public:
  // sparse_layers: block numbers, ascending; a sparse layer is named below by its index in this
  // list.
  HyperGenerator(const HyperConfig& config, const ModelConfig& model,
                 const std::vector<int64_t>& sparse_layers, ParameterFactory& factory);

  int64_t num_layers() const { return static_cast<int64_t>(sparse_layers_.size()); }

  // Condition weights: what computes embeddings, which are to be given by layer, [N,t'] each,
  // before HiddenOfWeights is called. Otherwise null; they are parameters.
  const WeightEncoder* encoder() const { return encoder_ ? &*encoder_ : nullptr; }
  void SetExpertEmbeddings(std::vector<at::Tensor> by_layer) {
    expert_embeddings_ = std::move(by_layer);
  }

  // Rows of weights over the experts' embeddings, each of which gives an e: for selected sets
  // [M,K], or (z one_minus_prob) for probabilities [T,N], differentiable in them.
  at::Tensor WeightsOfSelections(const at::Tensor& members_MK) const;
  at::Tensor WeightsOfProbabilities(const at::Tensor& probs_TN) const;

  // k [M,q] for rows of weights, and for hidden states.
  at::Tensor HiddenOfWeights(const at::Tensor& weights_MN, int64_t layer) const;
  at::Tensor HiddenOfInput(const at::Tensor& x_TD, int64_t layer) const;

  // Eq. 7 for each row of k_MQ.
  HyperExperts Generate(const at::Tensor& k_MQ, int64_t layer) const;
  // The same for every layer, joined along the first axis: in one product for layers that share
  // their generator. k_LMQ: a tensor for each layer.
  HyperExperts GenerateAll(const std::vector<at::Tensor>& k_LMQ) const;

  // Eq. 8 with a k of every token's own, without ever forming Down and Up:
  //   x Down = sum_s k_s (x W_D,s),  h Up = (h outer k) W_U
  // in the precision of x_TD.
  at::Tensor ApplyBilinear(const at::Tensor& x_TD, const at::Tensor& k_TQ, int64_t layer) const;

  // scale learned: the layer's factor [1]; otherwise undefined.
  at::Tensor Factor(int64_t layer) const;

 private:
  struct SelectionMlp {
    at::Tensor w1, c1, w2, c2;  // [m,t'], [m], [t,m], [t]
  };
  struct Generator {
    at::Tensor project, project_bias;         // [q, t + l], [q]
    at::Tensor norm, norm_bias;               // [q]; k_norm layernorm
    at::Tensor down, down_bias, up, up_bias;  // [D A,q], [D A], [A D,q], [A D]
    at::Tensor down_offset, down_offset_bias, up_offset, up_offset_bias;  // [A,q], [A], [D,q], [D]
  };

  void MakeEmbeddings(ParameterFactory& factory);
  void MakeSelectionMlps(ParameterFactory& factory);
  void MakeGenerators(ParameterFactory& factory);
  std::vector<std::string> ScopeNames(HyperConfig::Scope scope) const;
  // Index of a layer's own among what `scope` has, in the order of ScopeNames.
  size_t IndexIn(HyperConfig::Scope scope, int64_t layer) const;
  const Generator& GeneratorOf(int64_t layer) const {
    return generators_[IndexIn(config_.share(), layer)];
  }
  const at::Tensor& EmbeddingsOf(int64_t layer) const;
  at::Tensor Hidden(const at::Tensor& p, int64_t layer) const;
  HyperExperts Generate(const Generator& generator, const at::Tensor& k_MQ) const;

  HyperConfig config_;
  int64_t num_experts_, top_k_, num_blocks_, width_, bottleneck_;
  std::vector<int64_t> sparse_layers_;
  std::vector<Stack> stacks_;                  // of the layers, ascending
  std::optional<WeightEncoder> encoder_;       // condition weights
  std::vector<at::Tensor> expert_embeddings_;  // [N,t'] by scope; condition weights: by layer
  std::vector<SelectionMlp> selection_mlps_;
  std::vector<Generator> generators_;
  std::vector<at::Tensor> factors_;
  at::Tensor layer_embedding_;  // [blocks, l]
};

}  // namespace hypermoe
