// What a model's configuration says between the lines.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/run.pb.h"
#include "kernels/grouped_ffn.h"

namespace hypermoe {

// Initial standard deviation of projections back into the residual stream (GPT-2): init_std /
// sqrt(2 num_layers).
double ResidualInitStd(const ModelConfig& config);

// A decoder-only model has one stack of blocks, the decoder. Blocks are numbered through the whole
// model, those of the encoder first.
enum class Stack { kEncoder, kDecoder };

bool HasEncoder(const ModelConfig& config);
int64_t EncoderBlocks(const ModelConfig& config);
int64_t DecoderBlocks(const ModelConfig& config);
// Of all stacks together.
int64_t NumBlocks(const ModelConfig& config);
Stack StackOf(const ModelConfig& config, int64_t block);

// The numbers of the blocks that are sparse, ascending; empty for kind dense.
std::vector<int64_t> SparseLayers(const ModelConfig& config);

// Width of an attention head.
int64_t HeadSize(const ModelConfig& config);

Activation ActivationOf(const ModelConfig& config);

// The dropout of embeddings and of attention probabilities, which may be that of sub-layers.
double EmbeddingDropoutOf(const ModelConfig& config);
double AttentionDropoutOf(const ModelConfig& config);
// Between the two matrices of dense feed-forward networks, and of experts and shared experts: GPT-2
// has none.
double DenseInnerDropoutOf(const ModelConfig& config);
double ExpertInnerDropoutOf(const ModelConfig& config);

}  // namespace hypermoe
