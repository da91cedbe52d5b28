// What saving at once and saving in the background have in common: which tensors a rank writes,
// their names, and how the files of all ranks become a checkpoint.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "parallel/flat_buffer.h"
#include "parallel/optimizer.h"
#include "parallel/process_mesh.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// Appends the parts of `flat`, an array like the buffer's values, under their global names.
void AppendValues(const FlatBuffer& buffer, const at::Tensor& flat,
                  std::vector<NamedTensor>* views);

// Appends the parts of `array`, one like the optimizer's of that buffer and kind of state, under
// their names in a checkpoint.
void AppendState(const Optimizer& optimizer, size_t buffer, size_t kind, const at::Tensor& array,
                 std::vector<NamedTensor>* views);

// Each tensor is one rank's to write: experts of the first expert group's, all else of rank 0.
bool Writes(const ProcessMesh& mesh, ParameterGroup group);

// The name of a rank's file, without ending.
std::string RankFile(int64_t rank);

// Writes the tensors `names` of `source` as FILE.safetensors into the temporary folder, durably,
// and what is in it into `part`. Nothing for no tensors. Local.
absl::Status WriteTensors(const CheckpointFolder& folder, const std::string& file,
                          const std::vector<std::string>& names, const TensorSource& source,
                          ManifestPart* part);

// Makes a checkpoint of the files that all ranks have written; `parts` are theirs, as text. Local,
// for one rank.
absl::Status PublishParts(const CheckpointFolder& folder, const CheckpointInfo& info,
                          int64_t optimizer_steps, const std::vector<std::string>& parts);

// Saves at once: every rank has `write_files` fill the folder and its part of the manifest, and
// rank 0, after `before_publish` if that is given, makes a checkpoint of them. Collective over
// `world`, the same result on every rank: after every phase all ranks agree, so that none is still
// writing when rank 0 goes on or cleans up. On failure the temporary folder is gone.
absl::Status SaveFiles(const CheckpointFolder& folder, const CheckpointInfo& info,
                       int64_t optimizer_steps, Communicator& world,
                       const std::function<absl::Status(ManifestPart*)>& write_files,
                       const std::function<absl::Status()>& before_publish = {});

}  // namespace hypermoe
