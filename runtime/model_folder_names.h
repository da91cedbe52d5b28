// What the tensors of a model folder are called, where that is not as the model's parameters are.
#pragma once

#include <string>
#include <vector>

#include "configs/run.pb.h"

namespace hypermoe {

// What a tensor of a file is.
struct FolderTensor {
  enum class Use {
    kParameter,  // the parameter `name`
    kCopy,       // the parameter `name` once more, bit for bit
    kOtherwise,  // the parameters that UntiedEmbeddings names, where the folder does not have them
    kNone,       // a constant that old files hold
  };
  Use use = Use::kParameter;
  std::string name;
};
FolderTensor TensorOfFolder(const ModelConfig& model, const std::string& name_in_file);

// The names under which the parameter `name` is written.
std::vector<std::string> NamesInFolder(const ModelConfig& model, const std::string& name);

// The (encoder's) token embedding.
std::string EmbeddingName(const ModelConfig& model);

// Encoder's and decoder's of an encoder-decoder model whose embeddings are not tied. Hugging Face
// has "shared.weight" beside them, which it uses nowhere but, where they are missing, instead.
std::vector<std::string> UntiedEmbeddings();

}  // namespace hypermoe
