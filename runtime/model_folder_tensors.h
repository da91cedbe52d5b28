// The tensors of a model folder: model.safetensors, or the shards that
// model.safetensors.index.json names.
#pragma once

#include <memory>
#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// Reads all headers. Tensors stand under the names of the parameters of `model`: GPT-2's without
// "transformer.", T5's dense networks as switch_transformers calls them. Copies (a head or the
// embeddings of encoder and decoder that are tied) must be what they copy bit for bit; they and
// constants that old files hold are left out. The index's metadata is not used. DataError: no such
// files or both sorts, pickle files alone, a damaged file, an index that does not agree with its
// shards, another type than float32, float64, float16 or bfloat16.
absl::StatusOr<std::shared_ptr<const TensorSource>> OpenFolderTensors(const std::string& folder,
                                                                      const ModelConfig& model);

}  // namespace hypermoe
