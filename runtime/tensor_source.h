// Tensors by global name, wherever they lie: in a model folder, in a checkpoint, or in another
// source that changes them on the way. What models are filled from.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "parallel/flat_buffer.h"
#include "runtime/status.h"

namespace hypermoe {

struct TensorEntry {
  c10::ScalarType dtype = c10::kFloat;
  std::vector<int64_t> shape;
};

// The size of its elements together.
int64_t TensorBytes(const TensorEntry& entry);

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // What is there, without reading it. Experts stand under their global ids.
  virtual const std::map<std::string, TensorEntry>& entries() const = 0;
  // CPU tensor of the entry's dtype and shape, on demand: only what is asked for is in memory. It
  // may share a file's mapping: never write to it. DataError: no such entry, or a damaged file.
  virtual absl::StatusOr<at::Tensor> Read(const std::string& name) const = 0;
};

// Tensors in memory as a source. One that is undefined, or without memory (meta), has no entry.
class TensorsInMemory : public TensorSource {
 public:
  explicit TensorsInMemory(const std::vector<NamedTensor>& tensors);
  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override;

 private:
  std::map<std::string, TensorEntry> entries_;
  std::map<std::string, at::Tensor> tensors_;
};

// Called with the name and shape of a tensor.
using TensorVisitor = std::function<void(const std::string& name, at::IntArrayRef shape)>;

// Calls `visit` for each tensor of the whole model that `parameter` stands for: one, or one for
// each of `num_experts` experts.
void ForEachTensor(const Parameter& parameter, int64_t num_experts, const TensorVisitor& visit);

// Every tensor that is missing, that has another shape, or that is not expected, in one DataError
// "`what`: first; second; ...". `for_each_expected` calls what it is given for each tensor that the
// source should have; nothing is kept of those that it has not, so there may be any number.
absl::Status CheckEntries(const TensorSource& source, const std::string& what,
                          const std::function<void(const TensorVisitor&)>& for_each_expected);

// Fills the parameters of `buffers` (this rank's, under their global names) from `source`,
// converted to their dtype. Every tensor of the whole model that is missing, every one that the
// model does not have, and every wrong shape is listed in one DataError before the first value
// changes. `where` names the source in messages; `num_experts`: of the model on all ranks together.
// Local: ranks read independently and must agree on the result.
absl::Status FillParameters(const TensorSource& source, const std::string& where,
                            int64_t num_experts, std::vector<FlatBuffer>& buffers);

}  // namespace hypermoe
