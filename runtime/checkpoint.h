// Checkpoints of a run: run_dir/checkpoints/step_00000100/, complete or absent, readable at any
// world size and expert degree. Every tensor is stored once under its global name: parameters as
// they are called, the optimizer's state as "optimizer.KIND.NAME" (parallel/optimizer.h); one
// safetensors file per writing rank (with ZeRO-1 further ones for state where training waits for
// the save), and manifest.json, which lists them and holds everything that is not a tensor. Finding
// and identifying them is in checkpoint_folder.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/flat_buffer.h"
#include "parallel/optimizer.h"
#include "parallel/process_mesh.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// Writes into a temporary folder, makes it durable, renames it. Experts are written by the ranks of
// the first expert group, everything else by rank 0. Collective over the world; the same result on
// every rank. On failure the temporary folder is gone and older checkpoints are untouched. The
// gradients of a sharded optimizer's buffers are lost: its state is put together there.
absl::Status SaveCheckpoint(const std::string& run_dir, const CheckpointInfo& info,
                            const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer,
                            const ProcessMesh& mesh);

// A checkpoint of parameters alone, as they stand in `parameters` (of the whole model, under global
// names, in any dtypes): each rank writes its share of them, one tensor in memory at a time. All
// but training can use it. Otherwise as SaveCheckpoint; every rank must be able to read
// `parameters`.
absl::Status SaveParameters(const std::string& run_dir, const CheckpointInfo& info,
                            const TensorSource& parameters, Communicator& world);

// Fills the parameters of `buffers` (this rank's; global names), the state of `optimizer` and its
// step count, so that training goes on. Each rank reads the tensors that it holds, and checks no
// more than the parts of files that they lie in: over the ranks of a model together that is every
// byte. No rank changes a value before all have found names, shapes, dtypes and content as they
// must be; DataError, on every rank, lists what is wrong. Tensors that the model does not have are
// an error too; `num_experts` is how many experts it has on all ranks together (any number if it
// has none). Collective over `world`, the same status on every rank. (For parameters alone:
// FillParameters from CheckpointTensors.)
absl::Status LoadCheckpoint(const std::string& checkpoint, int64_t num_experts,
                            std::vector<FlatBuffer>& buffers, Optimizer& optimizer,
                            Communicator& world, Digests digests = Digests::kCheck);

}  // namespace hypermoe
