#include "runtime/written_tensors.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace hypermoe {

WrittenTensors::WrittenTensors(const GrownTensors& grown, const std::vector<Parameter>& parameters,
                               bool convert)
    : grown_(grown) {
  for (const Parameter& parameter : parameters) {
    if (parameter.group == ParameterGroup::kExpert) continue;
    for (NamedTensor& view : GlobalViews(parameter, parameter.value))
      replicated_[view.name] = std::move(view.tensor);
  }
  const at::ScalarType dtype = parameters.front().value.scalar_type();
  for (const auto& [name, entry] : grown.entries()) {
    // Routers may have been jittered since.
    const bool changed = grown.Changes(name) || IsRouterMatrix(name);
    entries_[name] = {convert || changed ? dtype : entry.dtype, entry.shape};
  }
}

absl::StatusOr<at::Tensor> WrittenTensors::Read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return DataError(absl::StrCat("no tensor '", name, "'"));
  const auto replicated = replicated_.find(name);
  if (replicated != replicated_.end()) return replicated->second.to(found->second.dtype);
  ASSIGN_OR_RETURN(const at::Tensor expert, grown_.Read(name));
  return expert.to(found->second.dtype);
}

}  // namespace hypermoe
