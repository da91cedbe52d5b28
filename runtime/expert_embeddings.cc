#include "runtime/expert_embeddings.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/keyed_random.h"
#include "model/config_values.h"

namespace hypermoe {
namespace {

constexpr int kRenumberings = 999;

std::vector<double> PairsOf(const Matrix& a_NN) {
  std::vector<double> pairs;
  for (int64_t i = 0; i < a_NN.rows; ++i) {
    for (int64_t j = i + 1; j < a_NN.columns; ++j) pairs.push_back(a_NN(i, j));
  }
  return pairs;
}

std::optional<double> Pearson(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() < 2) return std::nullopt;
  const auto count = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / count,
               mean_b = std::accumulate(b.begin(), b.end(), 0.0) / count;
  double aa = 0, bb = 0, ab = 0, size_a = 0, size_b = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    size_a += a[i] * a[i];
    size_b += b[i] * b[i];
  }
  // Equal values differ from their mean by rounding alone.
  constexpr double kRounding = 1e-24;
  if (!(aa > kRounding * size_a && bb > kRounding * size_b)) return std::nullopt;
  const double correlation = ab / std::sqrt(aa * bb);
  if (!std::isfinite(correlation)) return std::nullopt;
  return std::clamp(correlation, -1.0, 1.0);
}

// From 0; equal values share the mean of their ranks.
std::vector<double> RanksOf(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i)
      ranks[order[i]] = 0.5 * static_cast<double>(begin + end - 1);
  }
  return ranks;
}

double MantelProbability(const Matrix& a_NN, const std::vector<double>& b, double correlation,
                         uint64_t seed) {
  const int64_t experts = a_NN.rows;
  const RandomKey key = RandomKey{seed, 0}.Derive("Mantel");
  std::vector<int64_t> numbers(static_cast<size_t>(experts));
  std::iota(numbers.begin(), numbers.end(), int64_t{0});
  // Renumberings that only change what is equal are as good as the true one but for rounding.
  constexpr double kSlack = 1e-12;
  int as_good = 1;
  uint64_t drawn = 0;
  std::vector<double> pairs;
  for (int draw = 0; draw < kRenumberings; ++draw) {
    for (size_t i = numbers.size() - 1; i > 0; --i) {
      const auto other = static_cast<size_t>(UniformAt(key, drawn++) * static_cast<double>(i + 1));
      std::swap(numbers[i], numbers[other]);
    }
    pairs.clear();
    for (size_t i = 0; i < numbers.size(); ++i) {
      for (size_t j = i + 1; j < numbers.size(); ++j) pairs.push_back(a_NN(numbers[i], numbers[j]));
    }
    as_good += Pearson(pairs, b).value_or(-1) >= correlation - kSlack ? 1 : 0;
  }
  return static_cast<double>(as_good) / (kRenumberings + 1);
}

double DotOf(const Matrix& rows_ND, int64_t i, int64_t j) {
  double dot = 0;
  for (int64_t d = 0; d < rows_ND.columns; ++d) dot += rows_ND(i, d) * rows_ND(j, d);
  return dot;
}

absl::StatusOr<Matrix> ReadMatrix(const TensorSource& source, const std::string& name) {
  ASSIGN_OR_RETURN(const at::Tensor stored, source.Read(name));
  const at::Tensor wide = stored.to(at::kDouble).contiguous();
  Matrix matrix(wide.dim() == 1 ? 1 : wide.size(0), wide.size(-1));
  const double* data = wide.const_data_ptr<double>();
  std::copy(data, data + wide.numel(), matrix.values.begin());
  return matrix;
}

// rows W^T + c, W [out,in], c [1,out].
Matrix LinearOf(const Matrix& rows_MI, const Matrix& weight_OI, const Matrix& bias_1O) {
  Matrix result(rows_MI.rows, weight_OI.rows);
  for (int64_t m = 0; m < rows_MI.rows; ++m) {
    for (int64_t o = 0; o < weight_OI.rows; ++o) {
      double sum = bias_1O(0, o);
      for (int64_t i = 0; i < weight_OI.columns; ++i) sum += rows_MI(m, i) * weight_OI(o, i);
      result(m, o) = sum;
    }
  }
  return result;
}

// e of the selection of each expert alone (model/hyper_generator.h, Eq. 6).
Matrix AggregatesOf(const Matrix& experts_ND, const HyperConfig& config) {
  if (config.condition() == HyperConfig::selected) return experts_ND;
  const int64_t others = experts_ND.rows - 1;
  const double weight =
      config.agg() == HyperConfig::sum || others == 0 ? 1.0 : 1.0 / static_cast<double>(others);
  Matrix result(experts_ND.rows, experts_ND.columns);
  for (int64_t i = 0; i < result.rows; ++i) {
    for (int64_t j = 0; j < experts_ND.rows; ++j) {
      if (j == i) continue;
      for (int64_t d = 0; d < result.columns; ++d) result(i, d) += weight * experts_ND(j, d);
    }
  }
  return result;
}

// What a layer's own is called among what `scope` has.
std::string ScopeName(HyperConfig::Scope scope, const ModelConfig& model, int64_t block) {
  if (scope == HyperConfig::model) return "model";
  if (scope == HyperConfig::layer) return absl::StrCat(block);
  return StackOf(model, block) == Stack::kEncoder ? "encoder" : "decoder";
}

absl::StatusOr<LayerEmbeddings> ReadLayer(const StoredModel& stored, int64_t block) {
  const RunConfig& config = stored.model.config;
  const HyperConfig& hyper = config.hyper();
  const TensorSource& tensors = *stored.model.tensors;
  LayerEmbeddings layer;
  layer.block = block;
  ASSIGN_OR_RETURN(
      layer.experts,
      ReadMatrix(tensors,
                 absl::StrCat("hypermoe.expert_embedding.",
                              ScopeName(hyper.emb_scope(), config.model(), block), ".weight")));
  const std::string mlp = absl::StrCat(
      "hypermoe.selection_mlp.", ScopeName(hyper.sel_mlp_scope(), config.model(), block), ".");
  ASSIGN_OR_RETURN(const Matrix w0, ReadMatrix(tensors, mlp + "0.weight"));
  ASSIGN_OR_RETURN(const Matrix b0, ReadMatrix(tensors, mlp + "0.bias"));
  ASSIGN_OR_RETURN(const Matrix w2, ReadMatrix(tensors, mlp + "2.weight"));
  ASSIGN_OR_RETURN(const Matrix b2, ReadMatrix(tensors, mlp + "2.bias"));
  Matrix hidden = LinearOf(AggregatesOf(layer.experts, hyper), w0, b0);
  for (double& value : hidden.values) value = std::max(value, 0.0);
  layer.selections = LinearOf(hidden, w2, b2);

  layer.expert_cosines = CosinesOf(layer.experts);
  layer.expert_distances = DistancesOf(layer.experts);
  layer.selection_cosines = CosinesOf(layer.selections);
  layer.selection_distances = DistancesOf(layer.selections);
  const uint64_t seed = config.runtime().seed();
  layer.cosines = CorrelatePairs(layer.expert_cosines, layer.selection_cosines, seed);
  layer.distances = CorrelatePairs(layer.expert_distances, layer.selection_distances, seed);
  return layer;
}

std::string WhyNone(const RunConfig& config) {
  if (config.model().kind() != ModelConfig::hyper) {
    return absl::StrCat("the model's kind is ", ModelConfig::Kind_Name(config.model().kind()),
                        ": only kind hyper has embeddings of experts and selections");
  }
  if (config.hyper().baked()) {
    return "the model is baked: its HyperExperts stand in place of the hypernetwork, whose "
           "embeddings are gone; inspect what it was exported from";
  }
  if (config.hyper().condition() == HyperConfig::hidden) {
    return "hyper.condition is hidden: HyperExperts follow from the token, not from embeddings of "
           "experts";
  }
  if (config.hyper().condition() == HyperConfig::weights) {
    return "hyper.condition is weights: the embeddings of experts follow from the experts' "
           "matrices and are not stored";
  }
  return "";
}

}  // namespace

PairCorrelation CorrelatePairs(const Matrix& a_NN, const Matrix& b_NN, uint64_t seed) {
  const std::vector<double> a = PairsOf(a_NN), b = PairsOf(b_NN);
  PairCorrelation correlation;
  correlation.pearson = Pearson(a, b);
  if (!correlation.pearson.has_value()) return correlation;
  correlation.spearman = Pearson(RanksOf(a), RanksOf(b));
  correlation.p_value = MantelProbability(a_NN, b, *correlation.pearson, seed);
  return correlation;
}

Matrix CosinesOf(const Matrix& rows_ND) {
  Matrix cosines(rows_ND.rows, rows_ND.rows);
  for (int64_t i = 0; i < rows_ND.rows; ++i) {
    for (int64_t j = 0; j < rows_ND.rows; ++j) {
      const double size = std::sqrt(DotOf(rows_ND, i, i)) * std::sqrt(DotOf(rows_ND, j, j));
      cosines(i, j) = size > 0 ? std::clamp(DotOf(rows_ND, i, j) / size, -1.0, 1.0) : 0;
    }
  }
  return cosines;
}

Matrix DistancesOf(const Matrix& rows_ND) {
  Matrix distances(rows_ND.rows, rows_ND.rows);
  for (int64_t i = 0; i < rows_ND.rows; ++i) {
    for (int64_t j = 0; j < rows_ND.rows; ++j) {
      double squares = 0;
      for (int64_t d = 0; d < rows_ND.columns; ++d) {
        const double difference = rows_ND(i, d) - rows_ND(j, d);
        squares += difference * difference;
      }
      distances(i, j) = std::sqrt(squares);
    }
  }
  return distances;
}

absl::StatusOr<std::vector<LayerEmbeddings>> ReadExpertEmbeddings(const StoredModel& stored,
                                                                  std::string* why_none) {
  *why_none = WhyNone(stored.model.config);
  std::vector<LayerEmbeddings> layers;
  if (!why_none->empty()) return layers;
  for (const int64_t block : SparseLayers(stored.model.config.model())) {
    ASSIGN_OR_RETURN(LayerEmbeddings layer, ReadLayer(stored, block));
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace hypermoe
