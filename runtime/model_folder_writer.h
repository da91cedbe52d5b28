// Writes model folders that Hugging Face's programs and this one read.
#pragma once

#include <cstdint>
#include <string>

#include "parallel/communicator.h"
#include "runtime/model_folder.h"
#include "runtime/status.h"

namespace hypermoe {

// Of a file: what Hugging Face's programs write.
constexpr int64_t kDefaultShardBytes = 5'000'000'000;

// Writes `model` as the folder `output`: config.json (config_json with what has changed since it
// was read, or a new one) and model.safetensors, or where that would be larger than
// `max_shard_bytes` shards of at most that much (a larger tensor alone) and their index. Tensors
// keep their dtypes; DataError unless they are exactly those that the configuration calls for.
//
// The folder appears complete or not at all. UsageError if it is there already and not empty.
// Collective over `world`: the ranks write shards in turn, with one tensor in memory at a time, so
// each must be able to read all of model.tensors; the same status on every rank.
absl::Status WriteModelFolder(const ModelFolder& model, const std::string& output,
                              int64_t max_shard_bytes, Communicator& world);

// Bytes of "5GB", "500MB", "64kB" (powers of 1000), "4GiB", "512MiB" (of 1024) or "1000000".
// UsageError for others, and for less than 1.
absl::StatusOr<int64_t> ParseByteSize(const std::string& text);

}  // namespace hypermoe
