// The tensors of a model folder: model.safetensors, or the shards that
// model.safetensors.index.json names.
#pragma once

#include <memory>
#include <string>

#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// Reads all headers. Tensors stand under their names without "transformer."; lm_head.weight, which
// must be wte.weight bit for bit, and the masks of attention that old files hold are left out. The
// index's metadata is not used. DataError: no such files or both sorts, pickle files alone, a
// damaged file, an index that does not agree with its shards, another type than float32, float64,
// float16 or bfloat16.
absl::StatusOr<std::shared_ptr<const TensorSource>> OpenFolderTensors(const std::string& folder);

}  // namespace hypermoe
