// The tensors of a checkpoint, read on demand.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "runtime/checkpoint_manifest.h"
#include "runtime/safetensors.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// The tensors of a checkpoint that are parameters, or moments (under their whole names), or both.
class CheckpointTensors : public TensorSource {
 public:
  enum class Part { kParameters, kMoments, kAll };
  CheckpointTensors(std::string checkpoint, CheckpointManifest manifest, Part part);

  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  // The first read from a file compares all of it with the hash in the manifest.
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override;

 private:
  using File = std::shared_ptr<const SafetensorsFile>;

  std::string checkpoint_;
  CheckpointManifest manifest_;
  std::map<std::string, TensorEntry> entries_;
  mutable std::map<std::string, absl::StatusOr<File>> files_;
};

}  // namespace hypermoe
