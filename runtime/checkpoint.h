// Checkpoints of a run: run_dir/checkpoints/step_00000100/, complete or absent, readable at any world size and expert
// degree. Every tensor is stored once under its global name: parameters as they are called, Adam's moments as
// "optimizer.first_moment.NAME" and "optimizer.second_moment.NAME"; one safetensors file per writing rank, and manifest.json,
// which lists them and holds everything that is not a tensor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "parallel/adamw.h"
#include "parallel/flat_buffer.h"
#include "parallel/process_mesh.h"
#include "runtime/status.h"

namespace hypermoe {

// What a checkpoint knows beside tensors.
struct CheckpointInfo {
  int64_t step = 0;  // optimizer steps taken
  RunConfig config;
  std::string data_fingerprint;  // Splits::fingerprint
  int world_size = 1;
  int expert_parallel = 1;
  int threads = 1;  // per rank
};

// Writes into a temporary folder, makes it durable, renames it. Experts are written by the ranks of the first expert
// group, everything else by rank 0. Collective over the world; the same result on every rank. On failure the temporary
// folder is gone and older checkpoints are untouched.
absl::Status SaveCheckpoint(const std::string& run_dir, const CheckpointInfo& info, const std::vector<FlatBuffer>& buffers,
                            const AdamW& optimizer, const ProcessMesh& mesh);

// The folder of the newest checkpoint of `run_dir`, or nothing. Local.
absl::StatusOr<std::optional<std::string>> LatestCheckpoint(const std::string& run_dir);

// `path` may be a run folder (its newest checkpoint; an error if it has none) or a checkpoint folder. Local.
absl::StatusOr<std::string> ResolveCheckpoint(const std::string& path);

// Reads and checks the manifest. Local.
absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& checkpoint);

// Fills the parameters of `buffers` (this rank's; global names), and with `optimizer` its moments and step count too. All
// names, shapes and dtypes are checked before the first value changes; missing and unexpected tensors are listed. Float
// dtypes must agree. Local: ranks read independently, agree on the result themselves.
absl::Status LoadCheckpoint(const std::string& checkpoint, std::vector<FlatBuffer>& buffers, AdamW* optimizer);

}  // namespace hypermoe
