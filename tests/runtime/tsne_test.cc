#include "runtime/tsne.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/keyed_random.h"
#include "runtime/expert_embeddings.h"

namespace hypermoe {
namespace {

// Keyed random numbers from -0.5 to 0.5.
Matrix RandomMatrix(int64_t rows, int64_t columns, uint64_t stream) {
  Matrix matrix(rows, columns);
  for (size_t i = 0; i < matrix.values.size(); ++i)
    matrix.values[i] = UniformAt({3, stream}, i) - 0.5;
  return matrix;
}

// `groups` groups in 10 dimensions, point i in group i % groups.
Matrix Planted(int64_t points, int64_t groups) {
  Matrix matrix = RandomMatrix(points, 10, static_cast<uint64_t>(points));
  for (int64_t i = 0; i < points; ++i) matrix(i, i % groups) += 6;
  return matrix;
}

double PerplexityOfRow(const Matrix& distances, int64_t row, double precision) {
  double sum = 0, entropy = 0;
  const auto weight = [&](int64_t j) {
    return j == row ? 0 : std::exp(-precision * distances(row, j) * distances(row, j));
  };
  for (int64_t j = 0; j < distances.columns; ++j) sum += weight(j);
  for (int64_t j = 0; j < distances.columns; ++j) {
    const double p = weight(j) / sum;
    if (p > 0) entropy -= p * std::log(p);
  }
  return std::exp(entropy);
}

// The definition, with each row's precision found by trying a fine grid.
Matrix PlainAffinities(const Matrix& distances, double perplexity) {
  const int64_t n = distances.rows;
  Matrix affinities(n, n);
  for (int64_t i = 0; i < n; ++i) {
    double best = 0, precision = 0;
    for (int step = 0; step < 40000; ++step) {
      const double tried = std::exp(-6.0 + 12.0 * step / 40000);
      const double miss = std::abs(PerplexityOfRow(distances, i, tried) - perplexity);
      if (step > 0 && miss >= best) continue;
      best = miss;
      precision = tried;
    }
    double sum = 0;
    for (int64_t j = 0; j < n; ++j)
      sum += j == i ? 0 : std::exp(-precision * std::pow(distances(i, j), 2));
    for (int64_t j = 0; j < n; ++j) {
      if (j == i) continue;
      const double p = std::exp(-precision * std::pow(distances(i, j), 2)) / sum;
      affinities(i, j) += p / (2.0 * static_cast<double>(n));
      affinities(j, i) += p / (2.0 * static_cast<double>(n));
    }
  }
  return affinities;
}

TEST(TsneTest, AffinitiesAreThoseOfTheDefinition) {
  const Matrix distances = DistancesOf(RandomMatrix(9, 4, 1));
  const Matrix actual = TsneAffinities(distances, 3), expected = PlainAffinities(distances, 3);
  double sum = 0;
  for (size_t i = 0; i < actual.values.size(); ++i) {
    EXPECT_NEAR(actual.values[i], expected.values[i], 2e-5);
    sum += actual.values[i];
  }
  EXPECT_NEAR(sum, 1, 1e-12);
  // Whatever the unit of the distances.
  Matrix larger = distances;
  for (double& value : larger.values) value *= 1e6;
  const Matrix same = TsneAffinities(larger, 3);
  for (size_t i = 0; i < actual.values.size(); ++i)
    EXPECT_NEAR(same.values[i], actual.values[i], 1e-9);
}

TEST(TsneTest, GradientIsThatOfTheDivergence) {
  const Matrix affinities = TsneAffinities(DistancesOf(RandomMatrix(7, 5, 2)), 2.5);
  Matrix map = RandomMatrix(7, 2, 3), gradient;
  EXPECT_GT(TsneDivergence(affinities, map, &gradient), 0);
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < map.values.size(); ++i) {
    const double value = map.values[i];
    map.values[i] = value + kStep;
    const double above = TsneDivergence(affinities, map, nullptr);
    map.values[i] = value - kStep;
    const double below = TsneDivergence(affinities, map, nullptr);
    map.values[i] = value;
    EXPECT_NEAR(gradient.values[i], (above - below) / (2 * kStep), 1e-9) << i;
  }
}

TEST(TsneTest, SeparatesPlantedGroups) {
  const std::vector<std::pair<int64_t, int64_t>> cases = {{8, 2}, {16, 4}, {64, 8}};
  for (const auto& [points, groups] : cases) {
    const auto map = MakeTsneMap(DistancesOf(Planted(points, groups)), 1);
    ASSERT_TRUE(map.has_value());
    const Matrix distances = DistancesOf(map->points_N2);
    double within = 0, between = HUGE_VAL;
    for (int64_t i = 0; i < points; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        if (i % groups == j % groups) {
          within = std::max(within, distances(i, j));
        } else {
          between = std::min(between, distances(i, j));
        }
      }
    }
    EXPECT_GT(between, 1.5 * within) << points << " points in " << groups << " groups";
  }
}

TEST(TsneTest, TheSameBitsTwiceAndAnotherMapForAnotherSeed) {
  const Matrix distances = DistancesOf(Planted(12, 3));
  const auto map = MakeTsneMap(distances, 1);
  EXPECT_EQ(map->points_N2.values, MakeTsneMap(distances, 1)->points_N2.values);
  EXPECT_NE(map->points_N2.values, MakeTsneMap(distances, 2)->points_N2.values);
}

TEST(TsneTest, PointsThatAreEqualStayTogether) {
  Matrix clones = RandomMatrix(4, 3, 5);
  clones.values.insert(clones.values.end(), clones.values.begin(), clones.values.end());
  clones.rows = 8;
  const auto map = MakeTsneMap(DistancesOf(clones), 1);
  ASSERT_TRUE(map.has_value());
  for (const double value : map->points_N2.values) EXPECT_TRUE(std::isfinite(value));
  const Matrix distances = DistancesOf(map->points_N2);
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 8; ++j) {
      if (j % 4 == i) continue;
      EXPECT_GT(distances(i, j), distances(i, i + 4)) << i << " and " << j;
    }
  }
}

TEST(TsneTest, NoMapOfTooFewPointsOrOfNumbersGoneWrong) {
  EXPECT_FALSE(MakeTsneMap(DistancesOf(RandomMatrix(3, 2, 1)), 1).has_value());
  Matrix distances = DistancesOf(RandomMatrix(5, 2, 1));
  distances(0, 1) = distances(1, 0) = NAN;
  EXPECT_FALSE(MakeTsneMap(distances, 1).has_value());
  EXPECT_TRUE(MakeTsneMap(Matrix(5, 5), 1).has_value());  // all in one place
}

}  // namespace
}  // namespace hypermoe
