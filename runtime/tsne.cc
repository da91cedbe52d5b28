#include "runtime/tsne.h"

#include <algorithm>
#include <cmath>

#include "kernels/keyed_random.h"

namespace hypermoe {
namespace {

constexpr int kMaps = 4;
constexpr int kIterations = 1000;
// At first affinities are larger than they are, so that groups find together before they spread.
constexpr int kExaggerated = 250;
constexpr double kExaggeration = 12;
constexpr double kStartScale = 1e-4;

// p_j|i for all j at precision `beta`; its entropy in nats. Relative to the nearest, so that none
// underflows for all.
double RowEntropy(const Matrix& squares_NN, int64_t row, double beta, double nearest,
                  std::vector<double>* p) {
  double sum = 0, weighted = 0;
  for (int64_t j = 0; j < squares_NN.columns; ++j) {
    const double above = squares_NN(row, j) - nearest;
    const double value = j == row ? 0 : std::exp(-beta * above);
    (*p)[static_cast<size_t>(j)] = value;
    sum += value;
    weighted += value * above;
  }
  for (double& value : *p) value /= sum;
  return std::log(sum) + beta * weighted / sum;
}

// Bisects for the precision that gives the row `entropy`, which falls as precision rises. Where
// more neighbours are equally near than that allows, it ends with those alone.
void FillRow(const Matrix& squares_NN, int64_t row, double entropy, std::vector<double>* p) {
  constexpr int kSteps = 200;
  constexpr double kTolerance = 1e-10;
  double nearest = HUGE_VAL;
  for (int64_t j = 0; j < squares_NN.columns; ++j) {
    if (j != row) nearest = std::min(nearest, squares_NN(row, j));
  }
  double low = 0, high = HUGE_VAL, beta = 1;
  for (int step = 0; step < kSteps; ++step) {
    const double above = RowEntropy(squares_NN, row, beta, nearest, p) - entropy;
    if (std::abs(above) < kTolerance) return;
    (above > 0 ? low : high) = beta;
    const double next = std::isinf(high) ? 2 * beta : 0.5 * (low + high);
    if (!std::isfinite(next * squares_NN.columns)) return;
    beta = next;
  }
}

// Squares, divided by their mean.
Matrix ScaledSquares(const Matrix& distances_NN) {
  Matrix squares_NN = distances_NN;
  double sum = 0;
  for (double& value : squares_NN.values) {
    value *= value;
    sum += value;
  }
  const double mean = sum / static_cast<double>(squares_NN.values.size());
  if (mean > 0) {
    for (double& value : squares_NN.values) value /= mean;
  }
  return squares_NN;
}

// Gradient descent with momentum, and a gain for each coordinate that grows while it goes on in one
// direction.
class Descent {
 public:
  Descent(const Matrix& affinities_NN, Matrix start_N2)
      : affinities_NN_(affinities_NN),
        map_N2_(std::move(start_N2)),
        gradient_N2_(map_N2_.rows, 2),
        velocity_N2_(map_N2_.rows, 2),
        gains_N2_(map_N2_.rows, 2) {
    std::fill(gains_N2_.values.begin(), gains_N2_.values.end(), 1.0);
  }

  Matrix Run() {
    Matrix exaggerated_NN = affinities_NN_;
    for (double& value : exaggerated_NN.values) value *= kExaggeration;
    for (int i = 0; i < kIterations; ++i) {
      const bool early = i < kExaggerated;
      Step(early ? exaggerated_NN : affinities_NN_, early ? 0.5 : 0.8);
    }
    return map_N2_;
  }

 private:
  void Step(const Matrix& affinities_NN, double momentum) {
    // What is stable while affinities are exaggerated.
    const double rate = static_cast<double>(map_N2_.rows) / kExaggeration;
    TsneDivergence(affinities_NN, map_N2_, &gradient_N2_);
    for (size_t i = 0; i < map_N2_.values.size(); ++i) {
      double &gain = gains_N2_.values[i], &velocity = velocity_N2_.values[i];
      const double gradient = gradient_N2_.values[i];
      gain = gradient * velocity < 0 ? gain + 0.2 : std::max(0.01, gain * 0.8);
      velocity = momentum * velocity - rate * gain * gradient;
      map_N2_.values[i] += velocity;
    }
    Center();
  }

  void Center() {
    for (int64_t axis = 0; axis < 2; ++axis) {
      double sum = 0;
      for (int64_t i = 0; i < map_N2_.rows; ++i) sum += map_N2_(i, axis);
      for (int64_t i = 0; i < map_N2_.rows; ++i)
        map_N2_(i, axis) -= sum / static_cast<double>(map_N2_.rows);
    }
  }

  const Matrix& affinities_NN_;
  Matrix map_N2_, gradient_N2_, velocity_N2_, gains_N2_;
};

Matrix RandomStart(int64_t num_points, uint64_t seed, int map) {
  const RandomKey key = RandomKey{seed, 0}.Derive("t-SNE").Derive(static_cast<uint64_t>(map));
  Matrix start_N2(num_points, 2);
  for (size_t i = 0; i < start_N2.values.size(); ++i)
    start_N2.values[i] = kStartScale * (2 * UniformAt(key, i) - 1);
  return start_N2;
}

}  // namespace

Matrix TsneAffinities(const Matrix& distances_NN, double perplexity) {
  const int64_t num_points = distances_NN.rows;
  const Matrix squares_NN = ScaledSquares(distances_NN);
  Matrix affinities_NN(num_points, num_points);
  std::vector<double> row(static_cast<size_t>(num_points));
  for (int64_t i = 0; i < num_points; ++i) {
    FillRow(squares_NN, i, std::log(perplexity), &row);
    for (int64_t j = 0; j < num_points; ++j) {
      const double share = row[static_cast<size_t>(j)] / (2.0 * static_cast<double>(num_points));
      affinities_NN(i, j) += share;
      affinities_NN(j, i) += share;
    }
  }
  return affinities_NN;
}

double TsneDivergence(const Matrix& affinities_NN, const Matrix& map_N2, Matrix* gradient_N2) {
  const int64_t num_points = map_N2.rows;
  const auto weight = [&](int64_t i, int64_t j) {
    const double x = map_N2(i, 0) - map_N2(j, 0), y = map_N2(i, 1) - map_N2(j, 1);
    return 1.0 / (1.0 + x * x + y * y);
  };
  double weights = 0;
  for (int64_t i = 0; i < num_points; ++i) {
    for (int64_t j = 0; j < i; ++j) weights += 2 * weight(i, j);
  }
  double divergence = 0;
  if (gradient_N2 != nullptr) *gradient_N2 = Matrix(num_points, 2);
  for (int64_t i = 0; i < num_points; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      const double w = weight(i, j), p = affinities_NN(i, j);
      if (p > 0) divergence += 2 * p * std::log(p * weights / w);
      if (gradient_N2 == nullptr) continue;
      for (int64_t axis = 0; axis < 2; ++axis) {
        const double pull = 4 * (p - w / weights) * w * (map_N2(i, axis) - map_N2(j, axis));
        (*gradient_N2)(i, axis) += pull;
        (*gradient_N2)(j, axis) -= pull;
      }
    }
  }
  return divergence;
}

std::optional<TsneMap> MakeTsneMap(const Matrix& distances_NN, uint64_t seed) {
  const auto finite = [](double value) { return std::isfinite(value * value); };
  if (distances_NN.rows < 4 ||
      !std::all_of(distances_NN.values.begin(), distances_NN.values.end(), finite)) {
    return std::nullopt;
  }
  TsneMap best;
  best.perplexity = std::clamp(static_cast<double>(distances_NN.rows - 1) / 3, 2.0, 30.0);
  const Matrix affinities_NN = TsneAffinities(distances_NN, best.perplexity);
  for (int map = 0; map < kMaps; ++map) {
    const Matrix points_N2 =
        Descent(affinities_NN, RandomStart(distances_NN.rows, seed, map)).Run();
    const double divergence = TsneDivergence(affinities_NN, points_N2, nullptr);
    if (map > 0 && divergence >= best.divergence) continue;
    best.points_N2 = points_N2;
    best.divergence = divergence;
  }
  return best;
}

}  // namespace hypermoe
