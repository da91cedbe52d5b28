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

// The numbers of the blocks that are sparse, ascending; empty for kind dense.
std::vector<int64_t> SparseLayers(const ModelConfig& config);

Activation ActivationOf(const ModelConfig& config);

// The dropout of embeddings and of attention probabilities, which may be that of sub-layers.
double EmbeddingDropoutOf(const ModelConfig& config);
double AttentionDropoutOf(const ModelConfig& config);

}  // namespace hypermoe
