#include "runtime/tensor_source.h"

#include <ATen/core/grad_mode.h>

#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "parallel/progress_marks.h"
#include "runtime/file_util.h"
#include "runtime/fit_problems.h"

namespace hypermoe {
namespace {

absl::Status CheckFit(const TensorSource& source, const std::string& where, int64_t num_experts,
                      const std::vector<FlatBuffer>& buffers) {
  return CheckEntries(source, absl::StrCat(Printable(where), " does not fit the model"),
                      [&](const TensorVisitor& visit) {
                        for (const FlatBuffer& buffer : buffers) {
                          for (const Parameter* parameter : buffer.parameters())
                            ForEachTensor(*parameter, num_experts, visit);
                        }
                      });
}

}  // namespace

void ForEachTensor(const Parameter& parameter, int64_t num_experts, const TensorVisitor& visit) {
  std::vector<int64_t> shape = parameter.value.sizes().vec();
  if (parameter.named_transposed) std::swap(shape[shape.size() - 2], shape[shape.size() - 1]);
  if (parameter.group != ParameterGroup::kExpert) return visit(parameter.name, shape);
  for (int64_t expert = 0; expert < num_experts; ++expert)
    visit(ExpertName(parameter, expert), at::IntArrayRef(shape).slice(1));
}

absl::Status CheckEntries(const TensorSource& source, const std::string& what,
                          const std::function<void(const TensorVisitor&)>& for_each_expected) {
  FitProblems problems(kMostFitProblems);
  std::set<std::string> found;
  for_each_expected([&](const std::string& name, at::IntArrayRef shape) {
    const auto entry = source.entries().find(name);
    if (entry == source.entries().end()) return problems.Missing(name);
    found.insert(name);
    if (shape != entry->second.shape)
      problems.Misfit(name, ShapeText(entry->second.shape), ShapeText(shape));
  });
  for (const auto& [name, entry] : source.entries()) {
    if (!found.contains(name)) problems.Unexpected(name);
  }
  return problems.ToStatus(what);
}

int64_t TensorBytes(const TensorEntry& entry) {
  return std::accumulate(entry.shape.begin(), entry.shape.end(),
                         static_cast<int64_t>(c10::elementSize(entry.dtype)),
                         std::multiplies<int64_t>());
}

TensorsInMemory::TensorsInMemory(const std::vector<NamedTensor>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined() || tensor.is_meta()) continue;
    tensors_[name] = tensor;
    entries_[name] = {tensor.scalar_type(), tensor.sizes().vec()};
  }
}

absl::StatusOr<at::Tensor> TensorsInMemory::Read(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return DataError(absl::StrCat("no tensor '", Printable(name), "'"));
  return found->second.cpu();
}

absl::Status FillParameters(const TensorSource& source, const std::string& where,
                            int64_t num_experts, std::vector<FlatBuffer>& buffers) {
  const at::NoGradGuard no_grad;
  RETURN_IF_ERROR(CheckFit(source, where, num_experts, buffers));
  for (const FlatBuffer& buffer : buffers) {
    for (size_t i = 0; i < buffer.parameters().size(); ++i) {
      for (const NamedTensor& view :
           GlobalViews(*buffer.parameters()[i], buffer.View(buffer.values(), i))) {
        ASSIGN_OR_RETURN(const at::Tensor value, source.Read(view.name));
        view.tensor.copy_(value);
        MarkProgress();
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace hypermoe
