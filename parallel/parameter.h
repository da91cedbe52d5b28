// A tensor of a model and what the distributed machinery must know about it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace hypermoe {

// Which ranks hold the same values, and so over which group gradients are summed:
//   kDense   every rank; summed over the world
//   kHyper   the same, for the hypernetwork, whose gradients are complete last
//   kExpert  the ranks of one expert-data group; each expert group holds every expert once
enum class ParameterGroup { kDense, kHyper, kExpert };
constexpr int kNumParameterGroups = 3;

struct Parameter {
  // Global name, the same at every layout. kExpert: "{e}" stands for the global expert id, as in
  // "h.0.mlp.experts.expert_{e}.c_fc.weight".
  std::string name;
  // Leaf that requires grad unless it is frozen. kExpert: [local experts, ...], row i is expert
  // first_expert + i; may have zero rows.
  at::Tensor value;
  ParameterGroup group = ParameterGroup::kDense;
  int64_t first_expert = 0;
  bool weight_decay = false;
  // Whether the last two axes change places between `value` and the tensor of this name: matrices
  // that are kept [in, out], as products want them, and named [out, in], as Linear has them.
  bool named_transposed = false;
  // Keeps its value: no gradient, no moments, no update.
  bool frozen = false;
};

// The global name of the tensor of `expert`, by its global id, in a parameter of kExpert.
std::string ExpertName(const Parameter& parameter, int64_t expert);

// One tensor under its global name: what checkpoints, tests and folders speak of.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// `tensor` (the parameter's value, its gradient or state of an optimizer, of the value's shape; or
// state of fewer axes, but for kExpert with the same first one) as named tensors: one for kDense
// and kHyper, one per local expert for kExpert. They share memory with `tensor`, so that those of
// the shape of a named_transposed parameter are not contiguous, and are detached from autograd.
std::vector<NamedTensor> GlobalViews(const Parameter& parameter, const at::Tensor& tensor);

}  // namespace hypermoe
