// Which tensors a model folder of the GPT-2 family has, by name and shape, as its configuration
// says.
#pragma once

#include "configs/run.pb.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// Calls `visit` for each tensor of the whole model, in the order of the model. Nothing is stored,
// so that a configuration may claim any size.
void ForEachFolderTensor(const RunConfig& config, const TensorVisitor& visit);

}  // namespace hypermoe
