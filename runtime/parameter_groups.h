// What the tensors of a model are for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/tensor_source.h"

namespace hypermoe {

struct ParameterGroupSize {
  std::string name;  // for people: "experts", "generator"
  int64_t tensors = 0;
  int64_t parameters = 0;
};

// Sizes by group, of tensors under the names of the model's parameters; groups that the model has,
// always in the same order. Every tensor counts in one of them.
std::vector<ParameterGroupSize> GroupTensors(const std::map<std::string, TensorEntry>& entries);

}  // namespace hypermoe
