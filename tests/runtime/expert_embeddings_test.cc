// Embeddings with a structure that was planted: its correlations are known beforehand.
#include "runtime/expert_embeddings.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/corrcoef.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/made_model_folder.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kExperts = 6, kWidth = 4;

// A hypernetwork whose embeddings are `width` wide throughout, in one layer, on 6 experts.
json ConfigOf(const json& changes = json::object()) {
  json hyper = {{"expert_embedding_dim", kWidth},
                {"mlp_hidden_dim", kWidth},
                {"selection_embedding_dim", kWidth}};
  hyper.update(changes);
  return TinyConfig(TinyMoe({{"num_experts", kExperts}, {"sparse_layers", {1}}}), TinyHyper(hyper));
}

class ExpertEmbeddingsTest : public testing::Test {
 protected:
  // A model whose embeddings are `experts` [N,D], and whose MLP multiplies what it is given by
  // `map` [D,D]: what its ReLU sees is far above 0.
  void Plant(const json& config, const at::Tensor& experts, const at::Tensor& map) {
    auto tensors = RandomTensors(config, at::kDouble);
    tensors["hypermoe.expert_embedding.1.weight"] = experts;
    constexpr double kLift = 1000;
    tensors["hypermoe.selection_mlp.1.0.weight"] = at::eye(kWidth, at::kDouble);
    tensors["hypermoe.selection_mlp.1.0.bias"] = at::full({kWidth}, kLift, at::kDouble);
    tensors["hypermoe.selection_mlp.1.2.weight"] = map.contiguous();
    tensors["hypermoe.selection_mlp.1.2.bias"] = -kLift * map.sum(1);
    WriteMadeFolder(folder_ / "model", config, tensors);
  }

  std::vector<LayerEmbeddings> Read() {
    const auto stored = OpenStoredModel(folder_ / "model");
    EXPECT_TRUE(stored.ok()) << stored.status();
    const auto layers = ReadExpertEmbeddings(*stored, &why_none_);
    EXPECT_TRUE(layers.ok()) << layers.status();
    return *layers;
  }

  TemporaryFolder folder_;
  std::string why_none_;
};

at::Tensor RandomEmbeddings() {
  at::Tensor embeddings = at::zeros({kExperts, kWidth}, at::kDouble);
  for (int64_t i = 0; i < embeddings.numel(); ++i)
    embeddings.view({-1})[i] = std::sin(1.7 * static_cast<double>(i * i) + 0.3);
  return embeddings;
}

// Of what stands above the diagonal.
double PearsonOf(const Matrix& a, const Matrix& b) {
  std::vector<double> x, y;
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = i + 1; j < a.columns; ++j) {
      x.push_back(a(i, j));
      y.push_back(b(i, j));
    }
  }
  return at::corrcoef(at::stack({at::tensor(x, at::kDouble), at::tensor(y, at::kDouble)}))[0][1]
      .item<double>();
}

// Without the i-th embedding the mean of the others moves against it, by a fifth: all distances
// shrink alike.
TEST_F(ExpertEmbeddingsTest, AnMlpThatKeepsDistancesGivesCorrelationOne) {
  for (const char* agg : {"mean", "sum"}) {
    Plant(ConfigOf({{"agg", agg}}), RandomEmbeddings(), at::eye(kWidth, at::kDouble));
    const auto layers = Read();
    ASSERT_EQ(layers.size(), 1u);
    EXPECT_EQ(layers[0].block, 1);
    EXPECT_NEAR(*layers[0].distances.pearson, 1, 1e-9);
    EXPECT_NEAR(*layers[0].distances.spearman, 1, 1e-9);
    // Of 720 renumberings of 6 experts only the true one is as good: by chance about one of 999.
    EXPECT_LT(*layers[0].distances.p_value, 0.01);
    const double shrunk = agg == std::string("mean") ? 0.2 : 1.0;
    for (size_t i = 0; i < layers[0].expert_distances.values.size(); ++i) {
      EXPECT_NEAR(layers[0].selection_distances.values[i],
                  shrunk * layers[0].expert_distances.values[i], 1e-9);
    }
  }
}

// Experts in places whose distances are known, of which the MLP sees one axis alone.
TEST_F(ExpertEmbeddingsTest, AnMlpThatSeesOneAxisGivesTheCorrelationOfThatAxis) {
  // (0,0), (3,0), (0,4), (3,4) and twice the middle of the first two.
  at::Tensor experts = at::zeros({kExperts, kWidth}, at::kDouble);
  const std::vector<std::pair<double, double>> places = {{0, 0}, {3, 0},   {0, 4},
                                                         {3, 4}, {1.5, 0}, {1.5, 0}};
  for (int64_t i = 0; i < kExperts; ++i) {
    experts[i][0] = places[static_cast<size_t>(i)].first;
    experts[i][1] = places[static_cast<size_t>(i)].second;
  }
  at::Tensor first_axis = at::zeros({kWidth, kWidth}, at::kDouble);
  first_axis[0][0] = 1;
  Plant(ConfigOf({{"agg", "sum"}}), experts, first_axis);
  const LayerEmbeddings layer = Read()[0];
  EXPECT_NEAR(layer.expert_distances(0, 3), 5, 1e-12);
  EXPECT_NEAR(layer.selection_distances(0, 3), 3, 1e-9);
  EXPECT_NEAR(layer.selection_distances(0, 2), 0, 1e-9);
  EXPECT_NEAR(layer.selection_distances(0, 4), 1.5, 1e-9);
  // By hand: of the pairs' distances 3 4 5 1.5 1.5 5 4 1.5 1.5 3 s s s s 0 with s = sqrt(1.5^2 +
  // 4^2), and 3 0 3 1.5 1.5 3 0 1.5 1.5 3 1.5 1.5 1.5 1.5 0.
  const double s = std::sqrt(18.25);
  const std::vector<double> a = {3, 4, 5, 1.5, 1.5, 5, 4, 1.5, 1.5, 3, s, s, s, s, 0},
                            b = {3, 0, 3, 1.5, 1.5, 3, 0, 1.5, 1.5, 3, 1.5, 1.5, 1.5, 1.5, 0};
  const double expected =
      at::corrcoef(at::stack({at::tensor(a, at::kDouble), at::tensor(b, at::kDouble)}))[0][1]
          .item<double>();
  EXPECT_LT(expected, 0.5);
  EXPECT_NEAR(*layer.distances.pearson, expected, 1e-9);
}

TEST_F(ExpertEmbeddingsTest, CosinesOfPlantedDirections) {
  // Two groups of one direction each, orthogonal to each other; condition selected hands them on.
  at::Tensor experts = at::zeros({kExperts, kWidth}, at::kDouble);
  for (int64_t i = 0; i < kExperts; ++i) experts[i][i % 2] = 1.0 + static_cast<double>(i);
  Plant(ConfigOf({{"condition", "selected"}}), experts, 2 * at::eye(kWidth, at::kDouble));
  const LayerEmbeddings layer = Read()[0];
  for (int64_t i = 0; i < kExperts; ++i) {
    for (int64_t j = 0; j < kExperts; ++j) {
      EXPECT_NEAR(layer.expert_cosines(i, j), i % 2 == j % 2 ? 1 : 0, 1e-12);
      EXPECT_NEAR(layer.selection_cosines(i, j), i % 2 == j % 2 ? 1 : 0, 1e-9);
    }
  }
  EXPECT_NEAR(*layer.cosines.pearson, 1, 1e-9);
}

// Against the equations in other words, with every tensor at random and the MLP's ReLU at work.
TEST_F(ExpertEmbeddingsTest, SelectionsAreThoseOfTheEquations) {
  const json config = ConfigOf();
  auto tensors = RandomTensors(config, at::kDouble);
  WriteMadeFolder(folder_ / "model", config, tensors);
  const LayerEmbeddings layer = Read()[0];
  const at::Tensor& experts = tensors.at("hypermoe.expert_embedding.1.weight");
  const auto mlp = [&](const char* name) {
    return tensors.at(std::string("hypermoe.selection_mlp.1.") + name);
  };
  for (int64_t i = 0; i < kExperts; ++i) {
    const at::Tensor e = (experts.sum(0) - experts[i]) / (kExperts - 1.0);
    const at::Tensor p = at::linear(at::relu(at::linear(e, mlp("0.weight"), mlp("0.bias"))),
                                    mlp("2.weight"), mlp("2.bias"));
    for (int64_t t = 0; t < kWidth; ++t)
      EXPECT_NEAR(layer.selections(i, t), p[t].item<double>(), 1e-12);
  }
  EXPECT_NEAR(*layer.distances.pearson,
              PearsonOf(layer.expert_distances, layer.selection_distances), 1e-12);
}

TEST_F(ExpertEmbeddingsTest, ModelsWithoutEmbeddingsSayWhy) {
  const std::vector<std::pair<json, const char*>> cases = {
      {TinyConfig(), "kind is dense"},
      {TinyConfig(TinyMoe()), "kind is moe"},
      {ConfigOf({{"condition", "hidden"}}), "hidden"},
      {ConfigOf({{"baked", true}}), "baked"}};
  for (const auto& [config, reason] : cases) {
    WriteMadeFolder(folder_ / "model", config, RandomTensors(config, at::kDouble));
    EXPECT_TRUE(Read().empty());
    EXPECT_THAT(why_none_, HasSubstr(reason));
    std::filesystem::remove_all(folder_ / "model");
  }
}

TEST(PairCorrelationTest, RanksShareTheirPlacesAndNothingIsMadeOfTooLittle) {
  // Distances 1 2 2 and 5 9 9 of three points: ranks 0 1.5 1.5 in both.
  Matrix a(3, 3), b(3, 3);
  a(0, 1) = 1, a(0, 2) = a(1, 2) = 2;
  b(0, 1) = 5, b(0, 2) = b(1, 2) = 9;
  const PairCorrelation same = CorrelatePairs(a, b, 1);
  EXPECT_NEAR(*same.spearman, 1, 1e-12);
  b(0, 1) = 10;
  EXPECT_NEAR(*CorrelatePairs(a, b, 1).pearson, -1, 1e-12);
  EXPECT_GT(*CorrelatePairs(a, b, 1).p_value, 0.5);
  EXPECT_FALSE(CorrelatePairs(a, Matrix(3, 3), 1).pearson.has_value());
  EXPECT_FALSE(CorrelatePairs(Matrix(2, 2), Matrix(2, 2), 1).pearson.has_value());
}

}  // namespace
}  // namespace hypermoe
