// A grown model on its way into files.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "parallel/parameter.h"
#include "runtime/grown_tensors.h"

namespace hypermoe {

// The tensors of a grown model as they are written: replicated ones are those of `parameters`,
// experts are made again from the source, so that each rank has all. What is as in the source keeps
// its dtype unless `convert`; all else gets that of the parameters, for a narrower one would not
// hold it. `grown` and what it reads must outlive this.
class WrittenTensors : public TensorSource {
 public:
  WrittenTensors(const GrownTensors& grown, const std::vector<Parameter>& parameters, bool convert);
  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override;

 private:
  const GrownTensors& grown_;
  std::map<std::string, at::Tensor> replicated_;
  std::map<std::string, TensorEntry> entries_;
};

}  // namespace hypermoe
