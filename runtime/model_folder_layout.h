// Which tensors a model has, by name and shape, as its configuration says. A folder has the same,
// but for some names (model_folder_names.h).
#pragma once

#include "configs/run.pb.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// Calls `visit` for each tensor of the whole model, in the order of the model. Nothing is stored,
// so that a configuration may claim any size.
void ForEachFolderTensor(const RunConfig& config, const TensorVisitor& visit);

}  // namespace hypermoe
