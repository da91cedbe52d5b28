// What the hypernetwork knows of the experts of a stored model, and whether distances among its
// selection embeddings follow those among its expert embeddings (arXiv:2402.12656, Fig. 5).
//
// Legend: N experts, T' width of an expert embedding, T of a selection embedding.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/matrix.h"
#include "runtime/status.h"
#include "runtime/stored_model.h"

namespace hypermoe {

// Of two symmetric matrices, over the N (N - 1) / 2 pairs above the diagonal. Absent where a
// correlation has no meaning: fewer than 2 pairs, or all of them equal.
struct PairCorrelation {
  std::optional<double> pearson, spearman;  // of values, and of their ranks
  // The share of renumberings of one matrix' rows and columns, out of 999 random ones and the true
  // one, for which Pearson's correlation is at least as large (Mantel's test): pairs are not
  // independent of each other, so that no table of correlations would do.
  std::optional<double> p_value;
};
PairCorrelation CorrelatePairs(const Matrix& a_NN, const Matrix& b_NN, uint64_t seed);

// Between the rows of a matrix. The cosine with a row of zeros is 0.
Matrix CosinesOf(const Matrix& rows_ND);
Matrix DistancesOf(const Matrix& rows_ND);

// Of a sparse layer.
struct LayerEmbeddings {
  int64_t block = 0;
  Matrix experts;  // [N,T']: S
  // [N,T]: row i is p for the selection of expert i alone, as in Fig. 5: of the embeddings of all
  // others (condition selected: of its own), by the layer's aggregation and MLP.
  Matrix selections;
  Matrix expert_cosines, expert_distances, selection_cosines, selection_distances;  // [N,N]
  PairCorrelation cosines, distances;
};

// By sparse layer; in float64, of tensors in whatever dtype. Empty, with the reason in `why_none`,
// for a model that has no embeddings of experts: another kind, baked, or a condition that takes
// none. Errors of reading tensors. Local.
absl::StatusOr<std::vector<LayerEmbeddings>> ReadExpertEmbeddings(const StoredModel& stored,
                                                                  std::string* why_none);

}  // namespace hypermoe
