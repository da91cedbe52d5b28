#include "runtime/model_cost.h"

#include "model/gpt2.h"
#include "runtime/run_length.h"

namespace hypermoe {
namespace {

struct Sizes {
  explicit Sizes(const RunConfig& config)
      : D(config.model().hidden_size()),
        F(config.model().ffn_size()),
        S(config.model().sequence_length()),
        V(config.model().vocab_size()),
        N(config.model().num_experts()),
        A(config.hyper().bottleneck_dim()),
        blocks(config.model().num_layers()),
        sparse(static_cast<int64_t>(SparseLayers(config.model()).size())) {}
  int64_t D, F, S, V, N, A, blocks, sparse;
};

// A linear layer's weight and bias.
int64_t Linear(int64_t in, int64_t out) { return in * out + out; }

int64_t HyperParameters(const HyperConfig& hyper, const Sizes& s) {
  const int64_t embedding = hyper.expert_embedding_dim(), mlp = hyper.mlp_hidden_dim(),
                selection = hyper.selection_embedding_dim(), layer = hyper.layer_embedding_dim(),
                hidden = hyper.hidden_dim();
  return s.sparse * (s.N * embedding + Linear(embedding, mlp) + Linear(mlp, selection)) +
         s.blocks * layer + Linear(selection + layer, hidden) + 2 * Linear(hidden, s.D * s.A);
}

// Of the matrix products that generate every HyperExpert once (model/hyper_network.h, Eq. 5-7).
int64_t GenerationFlops(const HyperConfig& hyper, const Sizes& s) {
  const int64_t embedding = hyper.expert_embedding_dim(), mlp = hyper.mlp_hidden_dim(),
                selection = hyper.selection_embedding_dim(), layer = hyper.layer_embedding_dim(),
                hidden = hyper.hidden_dim();
  const int64_t multiply_adds_per_expert = s.N * embedding + embedding * mlp + mlp * selection +
                                           (selection + layer) * hidden + 2 * hidden * s.D * s.A;
  return 2 * s.sparse * s.N * multiply_adds_per_expert;
}

}  // namespace

ParameterCounts CountParameters(const RunConfig& config) {
  const Sizes s(config);
  const ModelConfig::Kind kind = config.model().kind();
  const int64_t ffn = Linear(s.D, s.F) + Linear(s.F, s.D), norm = 2 * s.D;
  ParameterCounts counts;
  counts.dense = s.V * s.D + s.S * s.D + norm +
                 s.blocks * (2 * norm + Linear(s.D, 3 * s.D) + Linear(s.D, s.D)) +
                 (s.blocks - s.sparse) * ffn + s.sparse * s.D * s.N;
  if (kind == ModelConfig::moe_share) counts.dense += s.sparse * ffn;
  if (kind == ModelConfig::adapter) {
    counts.dense += s.sparse * (Linear(s.D, s.A) + Linear(s.A, s.D));
  }
  counts.experts = s.sparse * s.N * ffn;
  counts.active = counts.dense + s.sparse * ffn;
  if (kind == ModelConfig::hyper) {
    counts.hyper = HyperParameters(config.hyper(), s);
    counts.active += s.sparse * 2 * s.D * s.A;
  }
  return counts;
}

ModelFlops CountFlops(const RunConfig& config) {
  const Sizes s(config);
  const ModelConfig::Kind kind = config.model().kind();
  const int64_t ffn = 4 * s.D * s.F, low_rank = 4 * s.D * s.A;
  ModelFlops flops;
  flops.forward_per_token = s.blocks * (8 * s.D * s.D + 2 * s.D * (s.S + 1) + ffn) +
                            s.sparse * 2 * s.D * s.N + 2 * s.D * s.V;
  flops.experts_per_token = s.sparse * ffn;
  if (kind == ModelConfig::moe_share) flops.forward_per_token += s.sparse * ffn;
  if (kind == ModelConfig::hyper || kind == ModelConfig::adapter) {
    flops.forward_per_token += s.sparse * low_rank;
  }
  if (kind == ModelConfig::hyper) flops.generation_per_step = GenerationFlops(config.hyper(), s);
  return flops;
}

std::optional<double> FlopsUtilisation(const RunConfig& config, double tokens_per_second,
                                       int num_ranks, double dropped_share) {
  const double peak = config.runtime().peak_teraflops() * 1e12 * num_ranks;
  if (peak <= 0) return std::nullopt;
  return tokens_per_second *
         CountFlops(config).TrainingPerToken(BatchTokens(config), dropped_share) / peak;
}

}  // namespace hypermoe
