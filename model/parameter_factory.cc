#include "model/parameter_factory.h"

#include <ATen/ops/empty.h>

#include "kernels/keyed_random.h"
#include "parallel/progress_marks.h"

namespace hypermoe {

at::Tensor ParameterFactory::Make(const std::string& name, at::IntArrayRef shape, Init init,
                                  ParameterGroup group, NamedAs named_as) {
  at::Tensor value = at::empty(shape, options_.device(at::kCPU));
  Fill(value, name, init);
  Parameter parameter;
  parameter.name = name;
  parameter.group = group;
  parameter.weight_decay = shape.size() >= 2;
  parameter.named_transposed = named_as == NamedAs::kTransposed;
  return Register(std::move(parameter), value);
}

at::Tensor ParameterFactory::MakeExperts(const std::string& name, ExpertRange experts,
                                         at::IntArrayRef shape, Init init, NamedAs named_as) {
  std::vector<int64_t> stacked{experts.size()};
  stacked.insert(stacked.end(), shape.begin(), shape.end());
  at::Tensor value = at::empty(stacked, options_.device(at::kCPU));
  Parameter parameter;
  parameter.name = name;
  parameter.group = ParameterGroup::kExpert;
  parameter.first_expert = experts.begin;
  parameter.weight_decay = shape.size() >= 2;
  parameter.value = value;
  for (const NamedTensor& expert : GlobalViews(parameter, value))
    Fill(expert.tensor, expert.name, init);
  parameter.named_transposed = named_as == NamedAs::kTransposed;
  return Register(std::move(parameter), value);
}

at::Tensor ParameterFactory::Register(Parameter parameter, const at::Tensor& value) {
  parameter.value = value.to(options_.device()).set_requires_grad(true);
  parameters_->push_back(std::move(parameter));
  return parameters_->back().value;
}

void ParameterFactory::Fill(const at::Tensor& tensor, const std::string& name, Init init) const {
  MarkProgress();  // a large model takes minutes
  const RandomKey key = RandomKey{seed_, 0}.Derive("initial value").Derive(name);
  switch (init.kind) {
    case Init::Kind::kConstant:
      tensor.fill_(init.value);
      return;
    case Init::Kind::kNormal:
      FillNormal(tensor, key, init.value);
      return;
    case Init::Kind::kUniform:
      FillUniform(tensor, key, -init.value, init.value);
      return;
  }
}

}  // namespace hypermoe
