// t-SNE (van der Maaten and Hinton, 2008), exact: a map in which points that are close together in
// many dimensions are so in the plane. Distances between groups that are far apart mean nothing.
//
// With p_j|i = exp(-b_i d_ij^2) / sum, where b_i gives row i the wished perplexity 2^entropy:
//   P_ij = (p_j|i + p_i|j) / (2 N),   Q_ij = w_ij / sum w,  w_ij = 1 / (1 + |y_i - y_j|^2)
// and the map y minimises KL(P|Q) = sum P log(P / Q), whose gradient is
//   dKL/dy_i = 4 sum_j (P_ij - Q_ij) w_ij (y_i - y_j)
//
// Legend: N points, D their dimensions.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/matrix.h"

namespace hypermoe {

// P of all pairs, whose sum is 1, for distances that may have any scale.
Matrix TsneAffinities(const Matrix& distances_NN, double perplexity);

// KL(P|Q) of a map, and its gradient unless that is null.
double TsneDivergence(const Matrix& affinities_NN, const Matrix& map_N2, Matrix* gradient_N2);

struct TsneMap {
  Matrix points_N2;
  double divergence = 0;  // KL(P|Q)
  double perplexity = 0;
};

// The best of a few maps that start from keyed random points; the same bits every time. Perplexity:
// (N - 1) / 3, from 2 to 30. Nothing for fewer than 4 points, which have no neighbourhoods, and
// where a distance is not finite.
std::optional<TsneMap> MakeTsneMap(const Matrix& distances_NN, uint64_t seed);

}  // namespace hypermoe
