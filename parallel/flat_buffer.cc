#include "parallel/flat_buffer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

namespace hypermoe {

FlatBuffer::FlatBuffer(ParameterGroup group, std::vector<Parameter*> parameters)
    : group_(group), parameters_(std::move(parameters)) {
  const auto place = [](const Parameter* parameter) {
    return parameter->frozen ? 2 : parameter->weight_decay ? 0 : 1;
  };
  std::stable_sort(parameters_.begin(), parameters_.end(),
                   [&](const Parameter* a, const Parameter* b) { return place(a) < place(b); });
  int64_t total = 0, trained = 0;
  for (const Parameter* parameter : parameters_) {
    TORCH_CHECK(parameter->group == group_, parameter->name, " belongs to another group");
    TORCH_CHECK(parameter->value.is_leaf() && parameter->value.requires_grad() != parameter->frozen,
                parameter->name, " must be a leaf that requires grad unless it is frozen");
    TORCH_CHECK(parameter->value.options().type_equal(parameters_[0]->value.options()),
                parameter->name, " differs in dtype or device from ", parameters_[0]->name);
    offsets_.push_back(total);
    total += parameter->value.numel();
    if (place(parameter) == 0) decayed_elements_ = total;
    if (!parameter->frozen) trained = total;
  }
  values_ = at::empty({total}, parameters_.empty() ? at::TensorOptions(at::kFloat)
                                                   : parameters_[0]->value.options());
  gradients_ = at::zeros({trained}, values_.options());

  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& leaf = parameters_[i]->value;
    const at::Tensor value = View(values_, i);
    value.copy_(leaf);
    // Keeps the leaf's identity, so modules and graphs that hold it see the buffer; and a gradient
    // that is defined already is added to in place by autograd, never replaced.
    leaf.set_data(value);
    if (!parameters_[i]->frozen) leaf.mutable_grad() = View(gradients_, i);
  }
}

at::Tensor FlatBuffer::View(const at::Tensor& flat, size_t index) const {
  const at::Tensor& shaped = parameters_[index]->value;
  return flat.narrow(0, offsets_[index], shaped.numel()).view(shaped.sizes());
}

void FlatBuffer::ZeroGradients() { gradients_.zero_(); }

std::vector<FlatBuffer> MakeFlatBuffers(std::vector<Parameter>& parameters) {
  std::vector<FlatBuffer> buffers;
  for (int group = 0; group < kNumParameterGroups; ++group) {
    std::vector<Parameter*> members;
    for (Parameter& parameter : parameters) {
      if (parameter.group == static_cast<ParameterGroup>(group)) members.push_back(&parameter);
    }
    buffers.emplace_back(static_cast<ParameterGroup>(group), std::move(members));
  }
  return buffers;
}

}  // namespace hypermoe
