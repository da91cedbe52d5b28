#include "parallel/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/accumulate.h>

#include <utility>

namespace hypermoe {

void Optimizer::Step(double learning_rate, const at::Tensor& gradient_scale,
                     const at::Tensor& skip) {
  const at::NoGradGuard no_grad;
  ++steps_;
  Update(learning_rate, gradient_scale, skip);
}

std::optional<std::vector<int64_t>> Optimizer::StateShape(const Parameter& parameter,
                                                          size_t kind) const {
  if (parameter.frozen) return std::nullopt;
  return ShapeOf(parameter, kind);
}

void Optimizer::GatherState(size_t buffer, size_t kind, const at::Tensor& whole) const {
  const at::NoGradGuard no_grad;
  whole.copy_(State(buffer, kind));
}

std::vector<NamedTensor> Optimizer::StateViews(size_t buffer, size_t kind,
                                               const at::Tensor& array) const {
  std::vector<NamedTensor> views;
  int64_t offset = 0;
  for (const Parameter* parameter : buffers_[buffer].parameters()) {
    const std::optional<std::vector<int64_t>> shape = StateShape(*parameter, kind);
    if (!shape) continue;
    const int64_t size = c10::multiply_integers(*shape);
    const at::Tensor state = array.narrow(0, offset, size).view(*shape);
    offset += size;
    for (NamedTensor& view : GlobalViews(*parameter, state)) views.push_back(std::move(view));
  }
  return views;
}

}  // namespace hypermoe
