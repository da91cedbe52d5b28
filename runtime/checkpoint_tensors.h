// The tensors of a checkpoint, read on demand.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "runtime/checkpoint_file.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// The tensors of a checkpoint that are parameters, or moments (under their whole names), or both.
class CheckpointTensors : public TensorSource {
 public:
  enum class Part { kParameters, kMoments, kAll };
  CheckpointTensors(std::string checkpoint, CheckpointManifest manifest, Part part,
                    Digests digests = Digests::kCheck);
  CheckpointTensors(const CheckpointTensors&) = delete;  // files refer to the manifest
  CheckpointTensors& operator=(const CheckpointTensors&) = delete;

  const std::map<std::string, TensorEntry>& entries() const override { return entries_; }
  // Checks the chunks that the tensor lies in, and those of its file's header, as CheckpointFile
  // does.
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override;

 private:
  std::string checkpoint_;
  CheckpointManifest manifest_;
  Digests digests_;
  std::map<std::string, TensorEntry> entries_;
  mutable std::map<std::string, absl::StatusOr<std::unique_ptr<CheckpointFile>>> files_;
};

}  // namespace hypermoe
