#include "parallel/parameter.h"

#include <c10/util/Exception.h>

namespace hypermoe {

std::vector<NamedTensor> GlobalViews(const Parameter& parameter, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.sizes() == parameter.value.sizes(), parameter.name, ": a tensor of shape ",
              tensor.sizes(), " was given for a parameter of shape ", parameter.value.sizes());
  const at::Tensor detached = tensor.detach();
  if (parameter.group != ParameterGroup::kExpert) return {{parameter.name, detached}};

  static constexpr char kExpertId[] = "{e}";
  const size_t id_begin = parameter.name.find(kExpertId);
  TORCH_CHECK(id_begin != std::string::npos, "expert parameter '", parameter.name,
              "' has no {e} in its name to stand for the expert's id");
  std::vector<NamedTensor> views;
  for (int64_t row = 0; row < detached.size(0); ++row) {
    std::string name = parameter.name;
    name.replace(id_begin, sizeof(kExpertId) - 1, std::to_string(parameter.first_expert + row));
    views.push_back({std::move(name), detached.select(0, row)});
  }
  return views;
}

}  // namespace hypermoe
