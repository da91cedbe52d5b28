#include "runtime/model_cost.h"

#include <algorithm>
#include <set>
#include <vector>

#include "model/config_values.h"
#include "model/selections.h"
#include "model/weight_encoder.h"
#include "runtime/hyper_execution.h"
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
        K(config.model().top_k()),
        A(config.hyper().bottleneck_dim()),
        I(config.model().num_heads() * HeadSize(config.model())),
        blocks(NumBlocks(config.model())),
        sparse(static_cast<int64_t>(SparseLayers(config.model()).size())),
        routers(config.model().router() == ModelConfig::noisy_topk ? 2 : 1) {}
  int64_t D, F, S, V, N, K, A, I, blocks, sparse;
  int64_t routers;  // matrices of a router
};

// A linear layer's weight and bias.
int64_t Linear(int64_t in, int64_t out) { return in * out + out; }

bool Hidden(const HyperConfig& hyper) { return hyper.condition() == HyperConfig::hidden; }
bool OfWeights(const HyperConfig& hyper) { return hyper.condition() == HyperConfig::weights; }

// Inputs of the map to k.
int64_t ProjectionInputs(const HyperConfig& hyper, const Sizes& s) {
  return hyper.layer_embedding_dim() + (Hidden(hyper) ? s.D : hyper.selection_embedding_dim());
}

// How many a model has of what `scope` says.
int64_t CountOf(HyperConfig::Scope scope, const ModelConfig& model) {
  if (scope == HyperConfig::model) return 1;
  const std::vector<int64_t> layers = SparseLayers(model);
  if (scope == HyperConfig::layer) return static_cast<int64_t>(layers.size());
  std::set<Stack> stacks;
  for (const int64_t layer : layers) stacks.insert(StackOf(model, layer));
  return static_cast<int64_t>(stacks.size());
}

int64_t HyperParameters(const RunConfig& config, const Sizes& s) {
  const HyperConfig& hyper = config.hyper();
  const auto count_of = [&](HyperConfig::Scope scope) { return CountOf(scope, config.model()); };
  const int64_t embedding = hyper.expert_embedding_dim(), mlp = hyper.mlp_hidden_dim(),
                selection = hyper.selection_embedding_dim(), hidden = hyper.hidden_dim(),
                generated = s.D * s.A;
  int64_t count = s.blocks * hyper.layer_embedding_dim();
  if (OfWeights(hyper)) {
    count += WeightEncoder::kParameters;
  } else if (!Hidden(hyper)) {
    count += count_of(hyper.emb_scope()) * s.N * embedding;
  }
  if (!Hidden(hyper))
    count += count_of(hyper.sel_mlp_scope()) * (Linear(embedding, mlp) + Linear(mlp, selection));
  int64_t generator = Linear(ProjectionInputs(hyper, s), hidden) + 2 * hidden * generated;
  if (hyper.lin_bias()) generator += 2 * generated;
  if (hyper.gen_bias()) generator += Linear(hidden, s.A) + Linear(hidden, s.D);
  if (hyper.k_norm() == HyperConfig::layernorm) generator += 2 * hidden;
  count += count_of(hyper.share()) * generator;
  return hyper.scale() == HyperConfig::learned ? count + s.sparse : count;
}

// Multiply-adds of the matrix products that generate one HyperExpert (model/hyper_generator.h, Eq.
// 5-7); in the bilinear form they cost the same.
int64_t GenerationCost(const HyperConfig& hyper, const Sizes& s) {
  const int64_t embedding = hyper.expert_embedding_dim(), mlp = hyper.mlp_hidden_dim(),
                hidden = hyper.hidden_dim();
  const int64_t offsets = hyper.gen_bias() ? hidden * (s.A + s.D) : 0;
  const int64_t selection =
      Hidden(hyper) ? 0 : s.N * embedding + embedding * mlp + mlp * hyper.selection_embedding_dim();
  return selection + ProjectionInputs(hyper, s) * hidden + 2 * hidden * s.D * s.A + offsets;
}

// Multiply-adds that compute all experts' embeddings; without condition weights none.
int64_t EncodingCost(const RunConfig& config, const Sizes& s) {
  const bool encodes = config.model().kind() == ModelConfig::hyper && OfWeights(config.hyper());
  return encodes ? s.sparse * s.N * WeightEncoder::kOperations : 0;
}

// Of GPT-2 without its feed-forward sub-layers.
int64_t Gpt2Parameters(const Sizes& s) {
  const int64_t norm = 2 * s.D;
  return s.V * s.D + s.S * s.D + norm +
         s.blocks * (2 * norm + Linear(s.D, 3 * s.D) + Linear(s.D, s.D));
}

// Of a Switch Transformer without its feed-forward sub-layers, but with their norms.
int64_t SwitchParameters(const ModelConfig& model, const Sizes& s) {
  const int64_t attention = 4 * s.D * s.I + s.D;  // with its norm
  const int64_t encoder = EncoderBlocks(model) * (attention + s.D),
                decoder = DecoderBlocks(model) * (2 * attention + s.D);
  const int64_t stack = int64_t{model.relative_buckets()} * model.num_heads() + s.D;
  return (model.tie_embeddings() ? 1 : 3) * s.V * s.D + encoder + decoder + 2 * stack;
}

// A stack of blocks, and what its tokens of one row attend to.
struct StackSizes {
  int64_t positions;  // of a row
  int64_t blocks, sparse;
  bool causal;
  int64_t encoded;  // positions of the encoder's output, which its blocks attend to too; 0: none
};

int64_t SparseBlocksOf(const ModelConfig& model, Stack stack) {
  const std::vector<int64_t> layers = SparseLayers(model);
  return std::count_if(layers.begin(), layers.end(),
                       [&](int64_t block) { return StackOf(model, block) == stack; });
}

std::vector<StackSizes> StacksOf(const RunConfig& config, const Sizes& s) {
  const ModelConfig& model = config.model();
  const StackSizes decoder = {s.S, DecoderBlocks(model), SparseBlocksOf(model, Stack::kDecoder),
                              /*causal=*/true, /*encoded=*/0};
  if (!HasEncoder(model)) return {decoder};
  const StackSizes encoder = {s.S, EncoderBlocks(model), SparseBlocksOf(model, Stack::kEncoder),
                              /*causal=*/false, /*encoded=*/0};
  StackSizes target = decoder;
  target.positions = LabelsOfRow(config);
  target.encoded = s.S;
  return {encoder, target};
}

int64_t FfnCost(const Sizes& s) { return 4 * s.D * s.F; }

int64_t AttentionOfRow(const StackSizes& stack, const Sizes& s) {
  const int64_t T = stack.positions, E = stack.encoded;
  const int64_t keys = stack.causal ? T + 1 : 2 * T;  // twice the mean
  int64_t block = T * (8 * s.D * s.I + 2 * s.I * keys);
  if (E > 0) block += T * (4 * s.D * s.I + 4 * s.I * E) + E * 4 * s.D * s.I;
  return stack.blocks * block;
}

int64_t FeedForwardOfRow(const StackSizes& stack, ModelConfig::Kind kind, const Sizes& s) {
  int64_t sparse = s.K * FfnCost(s) + s.routers * 2 * s.D * s.N;
  if (kind == ModelConfig::moe_share) sparse += FfnCost(s);
  if (kind == ModelConfig::hyper || kind == ModelConfig::adapter) sparse += 4 * s.D * s.A;
  return stack.positions * ((stack.blocks - stack.sparse) * FfnCost(s) + stack.sparse * sparse);
}

}  // namespace

ParameterCounts CountParameters(const RunConfig& config) {
  const Sizes s(config);
  const ModelConfig::Kind kind = config.model().kind();
  const bool encoder = HasEncoder(config.model());
  const int64_t ffn = encoder ? 2 * s.D * s.F : Linear(s.D, s.F) + Linear(s.F, s.D);
  ParameterCounts counts;
  counts.dense = (encoder ? SwitchParameters(config.model(), s) : Gpt2Parameters(s)) +
                 (s.blocks - s.sparse) * ffn + s.sparse * s.routers * s.D * s.N;
  if (config.model().router_bias()) counts.dense += s.sparse * s.N;
  if (kind == ModelConfig::moe_share) counts.dense += s.sparse * ffn;
  if (kind == ModelConfig::adapter) {
    counts.dense += s.sparse * (Linear(s.D, s.A) + Linear(s.A, s.D));
  }
  counts.experts = s.sparse * s.N * ffn;
  counts.active = counts.dense + s.sparse * s.K * ffn;
  if (kind == ModelConfig::hyper) {
    counts.hyper = HyperParameters(config, s);
    counts.active += s.sparse * (2 * s.D * s.A + (config.hyper().gen_bias() ? s.D + s.A : 0));
  }
  return counts;
}

std::optional<ModelFlops> CountFlops(const RunConfig& config) {
  if (!config.data().task().empty() && HasEncoder(config.model())) return std::nullopt;
  const Sizes s(config);
  const std::vector<StackSizes> stacks = StacksOf(config, s);
  int64_t row = 2 * s.D * s.V * stacks.back().positions, experts = 0;
  for (const StackSizes& stack : stacks) {
    row += AttentionOfRow(stack, s) + FeedForwardOfRow(stack, config.model().kind(), s);
    experts += stack.sparse * stack.positions * s.K * FfnCost(s);
  }
  ModelFlops flops;
  flops.experts_per_token = experts / s.S;
  if (config.model().kind() == ModelConfig::hyper) {
    const int64_t generation = 2 * GenerationCost(config.hyper(), s);
    for (const StackSizes& stack : stacks) {
      const int64_t of_row = stack.sparse * stack.positions, rows = config.train().batch_size();
      if (!SharedBySelection(config.hyper())) {
        row += of_row * generation;
        continue;
      }
      const int64_t tokens = rows * stack.positions;
      flops.generation_per_step +=
          stack.sparse * generation * std::min(tokens, NumSelections(s.N, s.K).value_or(tokens));
    }
  }
  flops.generation_per_step += 2 * EncodingCost(config, s);
  flops.forward_per_token = row / s.S;
  return flops;
}

std::optional<double> FlopsUtilisation(const RunConfig& config, double tokens_per_second,
                                       int num_ranks, double dropped_share) {
  const double peak = config.runtime().peak_teraflops() * 1e12 * num_ranks;
  const std::optional<ModelFlops> flops = CountFlops(config);
  if (peak <= 0 || !flops.has_value()) return std::nullopt;
  return tokens_per_second * flops->TrainingPerToken(BatchTokens(config), dropped_share) / peak;
}

}  // namespace hypermoe
