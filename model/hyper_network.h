// The hypernetwork of HyperMoE at work: generates HyperExperts (hyper_generator.h has the
// equations) and applies them.
//
// With hard routing a HyperExpert depends only on (layer, selected set). So all of them are
// generated in one pass per optimizer step and reused over its micro-batches; their gradients
// accumulate like those of weights, and one backward through the hypernetwork at the end of the
// step distributes them. Where there are too many selections for that (InCatalogue), those that
// occur are generated in every pass. Where every token has a HyperExpert of its own (condition
// hidden, z one_minus_prob), none is formed (bilinear).
//
// Condition weights, in every execution: each rank computes the embeddings of its own experts, of
// all layers, once per optimizer step as well; a gather over the expert group gives everyone all of
// them, and at the end of the step the sum of all ranks' gradients comes back to the experts'
// owner. So every expert's embedding has its whole gradient of an expert group on one rank of it,
// and the network's parameters, whose gradients are summed over the world, get it once.
//
// Legend: L sparse layers, N experts, K choices of a token, T tokens, M selections, D width, A
// bottleneck, q hidden_dim.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "configs/run.pb.h"
#include "kernels/grouped_ffn.h"
#include "model/hyper_generator.h"
#include "model/parameter_factory.h"
#include "model/router.h"
#include "model/selections.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

// Whether the HyperExperts of `num_selections` sets of `top_k` experts are generated once per step,
// whether they occur or not: those of single experts always, others up to 128.
bool InCatalogue(int64_t num_selections, int64_t top_k);

class HyperNetwork {
 public:
  // sparse_layers: block numbers, ascending; a sparse layer is named below by its index in this
  // list. If config.baked, HyperExperts are parameters themselves (hypermoe.baked.{g}.down [N,D,A],
  // .up [N,A,D] and their _offset), and nothing is generated. dispatcher: knows the experts held
  // here, the only ones to generate for if execution is owner and K = 1. Execution auto must have
  // been resolved; source and owner need binary z, a condition other than hidden, and selections
  // that can be numbered.
  HyperNetwork(const HyperConfig& config, const ModelConfig& model,
               const std::vector<int64_t>& sparse_layers,
               std::shared_ptr<const TokenDispatcher> dispatcher, ParameterFactory& factory);

  // The experts of a layer that are held here, parameters. Call for each before anything below.
  void SetExperts(int64_t layer, const GroupedFfnWeights& experts);

  // Whether HyperExperts act on the rows that this rank's experts have received, instead of on its
  // own tokens.
  bool at_owner() const { return config_.execution() == HyperConfig::owner; }
  // Whether rows that are grouped by their only expert are grouped by HyperExpert: ApplyGrouped.
  bool by_expert() const { return selections_.has_value() && top_k_ == 1; }
  bool scaled_by_gate() const { return config_.scale() == HyperConfig::gate; }
  bool skips_dropped() const { return config_.on_dropped() == HyperConfig::skip; }

  // Generates if no current HyperExperts are there. Call it where a graph is to be made (gradients
  // enabled) before passes that make none, for recomputation. Nothing where no catalogue is kept;
  // local; but condition weights: what it generates from are embeddings, and it is collective over
  // the expert group.
  void Prepare();

  // Outputs of the HyperExperts of a layer, in the precision of the rows, which are normalised
  // inputs of the sub-layer. Generate first if needed. Scaled if scale is learned; whatever depends
  // on gates or capacity is the caller's.
  //
  // Rows grouped by selected expert, rows_per_expert[i] for expert i (at the owner: for expert
  // local.begin + i). Only if by_expert().
  at::Tensor ApplyGrouped(const at::Tensor& sorted_TD, const std::vector<int64_t>& rows_per_expert,
                          int64_t layer);
  // Rows in any order, each with the number of its selection (Selections), or -1 for a row of
  // zeros. Only with execution source or owner.
  at::Tensor ApplySelections(const at::Tensor& x_TD, const at::Tensor& numbers_T, int64_t layer);
  // Tokens in any order with their routing decision. Not at the owner.
  at::Tensor Apply(const at::Tensor& x_TD, const RoutingResult& decision, int64_t layer);

  // For sending: int64 [T], see ApplySelections. Only with execution source or owner.
  at::Tensor SelectionNumbers(const at::Tensor& expert_ids_TK) const {
    return selections_->NumberOf(expert_ids_TK);
  }

  // Call once after the last backward of a step: turns the gradients that the catalogue and the
  // embeddings of condition weights have accumulated into gradients of the hypernetwork's
  // parameters (conv_grad_to_experts: and of experts). Afterwards both are generated anew when
  // needed. Local, but for condition weights collective over the expert group.
  void BackwardThroughGeneration();

  // Call when parameters have changed: HyperExperts generated before are not used again.
  void Invalidate();

  // How often the catalogue has been generated since construction.
  int64_t generations() const { return generations_; }

 private:
  // A tensor of all layers, [L,...], that is made once per step: with its graph, as leaves by layer
  // (views of it), and the leaves' gradients, views of one buffer.
  struct OncePerStep {
    at::Tensor generated, gradient;
    std::vector<at::Tensor> leaves;

    void Take(const at::Tensor& made);
    bool HasGradient() const { return generated.defined() && generated.requires_grad(); }
  };

  // HyperExperts, the rows that they are applied to, and how many of those each has.
  struct Chosen {
    HyperExperts experts;
    std::vector<int64_t> rows_per_network;
    at::Tensor rows_R;  // int64, grouped by HyperExpert
  };

  void MakeBaked(const ModelConfig& model, const std::vector<int64_t>& sparse_layers,
                 ParameterFactory& factory);
  void Encode();
  void Generate();
  // Whether there was anything to do.
  bool Backward(const std::vector<const OncePerStep*>& parts);
  HyperExperts LeavesOf(int64_t layer) const;
  bool IsCurrent() const;
  // Of rows with the numbers of their selections: of those generated once per step, and those
  // generated for this pass.
  Chosen ChosenOfCatalogue(const at::Tensor& numbers_T, int64_t layer);
  Chosen ChosenGenerated(const at::Tensor& numbers_T, int64_t layer) const;
  at::Tensor HiddenPerToken(const at::Tensor& x_TD, const RoutingResult& decision,
                            int64_t layer) const;
  at::Tensor ApplyPerToken(const at::Tensor& x_TD, const at::Tensor& k_TQ, int64_t layer) const;
  at::Tensor Scaled(const at::Tensor& y_TD, int64_t layer) const;

  HyperConfig config_;
  int64_t top_k_;
  std::shared_ptr<const TokenDispatcher> dispatcher_;
  // One of these: what generates HyperExperts, or (config.baked) those of all experts, by layer.
  std::optional<HyperGenerator> generator_;
  std::vector<HyperExperts> baked_;
  std::optional<Selections> selections_;  // execution source and owner
  // Condition weights: both matrices of the experts held here, by layer, and all embeddings
  // [L,N,t'].
  std::vector<std::array<at::Tensor, 2>> experts_;
  OncePerStep embeddings_;
  // Numbers of the selections in the catalogue; empty: none is kept.
  int64_t catalogue_begin_ = 0, catalogue_size_ = 0;
  // The four tensors of HyperExperts, [L,M,...]; undefined where these have none.
  std::array<OncePerStep, 4> catalogue_;
  bool prepared_ = false;
  bool with_graph_ = false;  // prepared with gradients enabled, whatever of it requires grad
  int64_t generations_ = 0;
};

}  // namespace hypermoe
