// Growing a model without changing what it computes: a dense one into a mixture of experts (sparse
// upcycling, arXiv:2212.05055), a mixture into one of a multiple of the experts, with or without
// what the other kinds add.
//
// With N experts in the source, m clones of each, and q of the clones taken wherever the source
// takes their expert (q = top_k of the target / top_k of the source), N' = m N:
//   * clone c of expert e is expert e + c N. Originals keep their numbers, and every rank of an
//     expert group gets clones of all experts, so that the ranks' load becomes more even.
//   * routers' columns (rows, where Linear names them) are copied, so each clone's probability is p
//   / m. Tied clones are taken in the
//     order of their numbers, hence all clones of the best expert before any of the second best:
//     the same experts are taken if top_k was 1 and q <= m, or if q = m.
//   * not renormalised, an expert's gates then sum to q p / m instead of p: the last matrix and
//     bias of every clone, and with hyper.scale gate those of the HyperExperts, are multiplied by
//     m / q. Renormalised gates need nothing.
//   * the embedding of the unselected experts (Eq. 6) would change, for a clone's siblings are not
//     selected. S'_j = own S_j + all sum_i S_i for every clone of j brings it back:
//       mean  own = (mN - q) / (q (N - 1)),  all = (q - m) / (q (N - 1))
//       sum   own = 1 / q,                   all = (q - m) / (q (mN - q))
//     (top_k 1; with q = m own is 1 or 1 / m and all is 0, whatever top_k). hyper.z one_minus_prob
//     weighs by probabilities alone, and so takes the same formulas with q = 1 whatever is taken.
//     Selected embeddings need own = 1 (mean) or 1 / q (sum).
//   * with hyper.condition weights an embedding follows from its expert, whose last matrix is
//   scaled,
//     and no siblings can be mixed in: only own can be brought about, by the network's last
//     convolution. So the function stays where experts are copied as they are and all is 0: with
//     q = m. Clones have the embedding of their original, or of what it has been scaled to.
// A dense source counts as one expert with gate 1 under a router of zeros; its routing is a pure
// tie. What the source lacks (hypernetwork, shared expert, adapter, noise) keeps the target's
// initial values, which add nothing to the output.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

struct EmbeddingMix {
  double own = 1, all = 0;
};

struct GrowthPlan {
  ModelConfig from, to;
  int64_t experts = 1;              // N
  int64_t clones = 1;               // m; of a dense source all experts
  double gate_scale = 1;            // of the experts' last matrix and bias
  bool keeps_hypernetwork = false;  // the source has one
  double hyper_scale = 1;           // of the generators' last matrix and bias
  EmbeddingMix embedding;
  // hyper.condition weights: whether embeddings that are computed from the target's experts can be
  // that mix.
  bool EncodesWhatItDid() const {
    return gate_scale == 1 && embedding.all == 0 && embedding.own > 0;
  }
  // Why the target cannot compute exactly what the source does, a phrase each; empty: it does.
  std::vector<std::string> changes;
};

// How a model of sections model and hyper of `from` becomes one of those of `to`, both with all
// fields set. ConfigError where no mapping of the parameters makes sense: another width, fewer
// experts, a number of them that is no multiple, a hypernetwork that is dropped or read otherwise.
absl::StatusOr<GrowthPlan> PlanGrowth(const RunConfig& from, const RunConfig& to);

// Multiplies the factors of factor_per_group capacities, so that every expert keeps its limit when
// `model` grows to `num_experts` and `top_k`. True if there was one.
bool KeepExpertLimits(int64_t num_experts, int64_t top_k, ModelConfig* model);

}  // namespace hypermoe
