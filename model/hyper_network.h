// The hypernetwork of HyperMoE (arXiv:2402.12656, Sec. 3.2, Eq. 5-9): one for all layers. From the
// embeddings of the experts a token did not select and the embedding of its layer it generates a
// small network, the HyperExpert, whose output is added to the selected expert's.
//
// With one selected expert the HyperExpert depends only on (layer, selected expert). So all of them
// are generated in one pass per optimizer step and reused over its micro-batches; their gradients
// accumulate like those of weights, and one backward through the hypernetwork at the end of the
// step distributes them.
//
// Legend: L sparse layers, N experts, T tokens, D width, A bottleneck, q hidden_dim; for layer l
// and selected expert i:
//   Eq. 5, 6  e = mean of S_j over j != i (0 if N = 1),  p = W2 relu(W1 e + c1) + c2
//             k = relu(W [p; layer embedding] + c)
//   Eq. 7     Down = reshape(W_D k + c_D, [D, A]),  Up = reshape(W_U k + c_U, [A, D])
//   Eq. 8, 9  y += relu(x Down) Up
// S, W1 and W2 are each layer's own; the rest is shared by all. W_U and c_U start at zero, so that
// training starts from the plain mixture of experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "configs/run.pb.h"
#include "model/parameter_factory.h"

namespace hypermoe {

class HyperNetwork {
 public:
  // sparse_layers: block numbers, ascending; a sparse layer is named below by its index in this
  // list. local: the experts held here, the only ones to generate for if execution is owner.
  // Execution auto must have been resolved.
  HyperNetwork(const HyperConfig& config, const ModelConfig& model,
               const std::vector<int64_t>& sparse_layers, ExpertRange local,
               ParameterFactory& factory);

  // Whether Apply takes the rows that this rank's experts have received, instead of its own tokens.
  bool at_owner() const { return config_.execution() == HyperConfig::owner; }

  // Generates if no current HyperExperts are there. Call it where a graph is to be made (gradients
  // enabled) before passes that make none, for recomputation. Local; nothing for per_token.
  void Prepare();

  // Output of the HyperExperts for rows grouped by selected expert: sorted_TD holds
  // rows_per_expert[i] rows for expert i (at the owner: for expert local.begin + i). Generates
  // first if needed. x is the normalised input of the sub-layer, in any precision: that of the
  // result.
  at::Tensor Apply(const at::Tensor& sorted_TD, const std::vector<int64_t>& rows_per_expert,
                   int64_t sparse_index);

  // Call once after the last backward of a step: turns the gradients that Apply's backward has
  // accumulated into gradients of the hypernetwork's parameters. Afterwards the HyperExperts are
  // generated anew when needed.
  void BackwardThroughGeneration();

  // Call when parameters have changed: HyperExperts generated before are not used again.
  void Invalidate();

  // How often all HyperExperts have been generated since construction.
  int64_t generations() const { return generations_; }

 private:
  struct LayerParameters {
    at::Tensor expert_embedding;  // [N, t']
    at::Tensor w1, c1, w2, c2;    // [m, t'], [m], [t, m], [t]
  };

  at::Tensor SelectionEmbedding(const LayerParameters& layer, const at::Tensor& unselected) const;
  at::Tensor HiddenVectors(const at::Tensor& selection, int64_t sparse_index) const;
  void Generate();
  at::Tensor ApplyPerToken(const at::Tensor& sorted_TD, const std::vector<int64_t>& rows_per_expert,
                           int64_t sparse_index) const;

  HyperConfig config_;
  int64_t num_experts_, width_;
  ExpertRange generated_experts_;  // the experts that this rank generates for
  std::vector<int64_t> sparse_layers_;
  std::vector<LayerParameters> layers_;
  at::Tensor layer_embedding_;         // [blocks, l]
  at::Tensor project_, project_bias_;  // [q, t + l], [q]
  at::Tensor down_, down_bias_;        // [D * A, q], [D * A]
  at::Tensor up_, up_bias_;            // [A * D, q], [A * D]

  // The current HyperExperts (N: generated_experts_): with their graph, and as leaves (views of it)
  // whose gradients are views of one buffer each.
  at::Tensor generated_down_LNDA_, generated_up_LNAD_;
  std::vector<at::Tensor> leaf_down_NDA_, leaf_up_NAD_;
  at::Tensor grad_down_LNDA_, grad_up_LNAD_;
  int64_t generations_ = 0;
};

}  // namespace hypermoe
