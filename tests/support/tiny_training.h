// Small models on made-up tokens, for tests that compare whole training steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/trainer.h"

namespace hypermoe {

// Three blocks of width 16, blocks 0 and 2 sparse with `num_experts` experts (kinds moe and hyper),
// rows of 8 tokens, 12 rows a batch, dropout, router jitter and both router losses on.
RunConfig TinyConfig(ModelConfig::Kind kind, int num_experts, RuntimeConfig::Dtype dtype);

// The same as a Switch Transformer of two encoder and three decoder blocks, of which blocks 1 and 3
// are sparse, with more dropout in experts than elsewhere; encoder and decoder have hypernetworks
// of their own.
RunConfig TinySwitchConfig(ModelConfig::Kind kind, int num_experts, RuntimeConfig::Dtype dtype);

// TinyConfig or TinySwitchConfig.
RunConfig TinyConfigOf(ModelConfig::Family family, ModelConfig::Kind kind, int num_experts,
                       RuntimeConfig::Dtype dtype);

// At most two tokens an expert from each row in training: with 8 tokens a row and 4 or 6 experts,
// some are too many.
void LimitCapacity(RunConfig* config);

// One file of `count` keyed random tokens below 16, in memory.
std::vector<WeightedTokens> TinyTokens(int64_t count = 4000);

// Rows of it for a trainer of `config`.
std::shared_ptr<const TrainingRows> TinyRows(const RunConfig& config, int64_t count = 4000);

// Gives every parameter keyed random values of its own, the same at every layout: initial values
// leave much of the hypernetwork without gradient (its last matrix is zero).
void Randomize(Trainer& trainer);

// One rank by itself, whatever the world.
ProcessMesh OneRankMesh();

using NamedTensors = std::map<std::string, at::Tensor>;
// Copies of this rank's gradients (of what is not frozen) or values under their global names.
NamedTensors Gradients(Trainer& trainer);
NamedTensors Values(Trainer& trainer);

// Copies of this rank's optimizer state under its names in a checkpoint, but for "optimizer.".
// Sharded, collective over the world.
NamedTensors OptimizerState(Trainer& trainer);

// The largest of max|a-b| / max(max|b|, 1e-3 * largest element of all of `reference`) over the
// tensors of `actual`; infinite if one is not in `reference`.
double LargestError(const NamedTensors& actual, const NamedTensors& reference);

}  // namespace hypermoe
