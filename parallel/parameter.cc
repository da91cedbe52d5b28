#include "parallel/parameter.h"

#include <c10/util/Exception.h>

namespace hypermoe {

std::string ExpertName(const Parameter& parameter, int64_t expert) {
  static constexpr char kExpertId[] = "{e}";
  std::string name = parameter.name;
  const size_t id_begin = name.find(kExpertId);
  TORCH_CHECK(id_begin != std::string::npos, "expert parameter '", name,
              "' has no {e} in its name to stand for the expert's id");
  return name.replace(id_begin, sizeof(kExpertId) - 1, std::to_string(expert));
}

std::vector<NamedTensor> GlobalViews(const Parameter& parameter, const at::Tensor& tensor) {
  const at::Tensor& value = parameter.value;
  const bool whole = tensor.sizes() == value.sizes(),
             expert = parameter.group == ParameterGroup::kExpert;
  const bool part = tensor.dim() < value.dim() &&
                    (!expert || (tensor.dim() > 0 && tensor.size(0) == value.size(0)));
  TORCH_CHECK(whole || part, parameter.name, ": a tensor of shape ", tensor.sizes(),
              " was given for a parameter of shape ", value.sizes());
  at::Tensor detached = tensor.detach();
  if (whole && parameter.named_transposed) detached = detached.transpose(-2, -1);
  if (!expert) return {{parameter.name, detached}};

  std::vector<NamedTensor> views;
  for (int64_t row = 0; row < detached.size(0); ++row) {
    views.push_back({ExpertName(parameter, parameter.first_expert + row), detached.select(0, row)});
  }
  return views;
}

}  // namespace hypermoe
