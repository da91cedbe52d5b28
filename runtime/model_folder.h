// Model folders in Hugging Face's form: config.json and model.safetensors, or
// model.safetensors.index.json and its shards. Model types gpt2 (dense, exactly Hugging Face's),
// hypermoe_gpt2 (sparse), switch_transformers (exactly Hugging Face's but for a block and tensors
// hypermoe, which it does not look at) and t5 (dense, one matrix in and one out); keys and tensors
// are described in the README.
#pragma once

#include <memory>
#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

struct ModelFolder {
  // Sections model and hyper (if hyper.baked, a learned scale is part of the HyperExperts);
  // runtime.dtype, float64 where the token embedding is; data.tokenizer, where the
  // folder holds GPT-2's files or T5's. Everything else as in RunConfig's defaults.
  RunConfig config;
  std::string config_json;  // the file's text: keys that mean nothing here are kept for export
  // Under the names of the model's parameters; tied and unused tensors are left out.
  std::shared_ptr<const TensorSource> tensors;
};

// Whether `path` is meant as a model folder: it holds a config.json.
bool IsModelFolder(const std::string& path);

// Reads config.json and all headers, checked as the folder of a stranger: nothing is allocated
// beyond the size of a file, paths in an index never leave the folder, pickle files are refused
// with the way to convert them. Tensor contents are read on demand. Local. DataError, ConfigError
// for a value of config.json that is valid there but not supported here, IoError.
absl::StatusOr<ModelFolder> OpenModelFolder(const std::string& dir);

// Whether `model` holds exactly the tensors that its configuration calls for. One DataError lists
// all that are missing, unexpected or of another shape; `where` names the model in it. Local.
absl::Status CheckFolderTensors(const std::string& where, const ModelFolder& model);

}  // namespace hypermoe
