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
  TORCH_CHECK(tensor.sizes() == parameter.value.sizes(), parameter.name, ": a tensor of shape ",
              tensor.sizes(), " was given for a parameter of shape ", parameter.value.sizes());
  at::Tensor detached = tensor.detach();
  if (parameter.named_transposed) detached = detached.transpose(-2, -1);
  if (parameter.group != ParameterGroup::kExpert) return {{parameter.name, detached}};

  std::vector<NamedTensor> views;
  for (int64_t row = 0; row < detached.size(0); ++row) {
    views.push_back({ExpertName(parameter, parameter.first_expert + row), detached.select(0, row)});
  }
  return views;
}

}  // namespace hypermoe
