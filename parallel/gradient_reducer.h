// Gradient reduction and clipping for parameters that are sharded and replicated in different
// groups.
//
// Each rank's loss is its share of a sum over the global batch (divisors are global counts), so
// every reduction is a plain SUM over the parameter's own group and nothing is rescaled afterwards.
#pragma once

#include <vector>

#include "parallel/flat_buffer.h"
#include "parallel/process_mesh.h"

namespace hypermoe {

// Sums the gradients of every buffer over the group that holds the same parameters: the world, or
// expert_data for experts. Collective over the world.
void ReduceGradients(const std::vector<FlatBuffer>& buffers, const ProcessMesh& mesh);

// sqrt of the sum of squares over all global parameters, each counted once, accumulated in float64:
// replicated groups from this rank's copy, experts summed over the expert group. The same bits on
// every rank and for every number of threads. Call after ReduceGradients. Collective over `expert`.
double GlobalGradientNorm(const std::vector<FlatBuffer>& buffers, Communicator& expert);

// Scales all gradients by max_norm / norm if norm > max_norm > 0. max_norm 0 means no clipping.
void ClipGradients(const std::vector<FlatBuffer>& buffers, double norm, double max_norm);

}  // namespace hypermoe
