#include "runtime/checkpoint_files.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/agreement.h"
#include "runtime/safetensors.h"

namespace hypermoe {

void AppendValues(const FlatBuffer& buffer, const at::Tensor& flat,
                  std::vector<NamedTensor>* views) {
  for (size_t i = 0; i < buffer.parameters().size(); ++i) {
    for (NamedTensor& view : GlobalViews(*buffer.parameters()[i], buffer.View(flat, i)))
      views->push_back(std::move(view));
  }
}

void AppendState(const Optimizer& optimizer, size_t buffer, size_t kind, const at::Tensor& array,
                 std::vector<NamedTensor>* views) {
  const std::string prefix = StatePrefix(optimizer.kinds()[kind]);
  for (NamedTensor& view : optimizer.StateViews(buffer, kind, array))
    views->push_back({prefix + view.name, std::move(view.tensor)});
}

bool Writes(const ProcessMesh& mesh, ParameterGroup group) {
  return group == ParameterGroup::kExpert ? mesh.expert_data->rank() == 0 : mesh.world->rank() == 0;
}

std::string RankFile(int64_t rank) { return absl::StrFormat("rank_%05d", rank); }

absl::Status WriteTensors(const CheckpointFolder& folder, const std::string& file,
                          const std::vector<std::string>& names, const TensorSource& source,
                          ManifestPart* part) {
  if (names.empty()) return absl::OkStatus();
  const std::string file_name = file + ".safetensors";
  ASSIGN_OR_RETURN(
      part->files[file_name],
      WriteSafetensors(absl::StrCat(folder.temporary(), "/", file_name), names, source, {}));
  for (const std::string& name : names) {
    const TensorEntry& entry = source.entries().at(name);
    part->tensors[name] = {file_name, SafetensorsDtype(entry.dtype), entry.shape};
  }
  return absl::OkStatus();
}

absl::Status PublishParts(const CheckpointFolder& folder, const CheckpointInfo& info,
                          int64_t optimizer_steps, const std::vector<std::string>& parts) {
  CheckpointManifest manifest;
  manifest.info = info;
  manifest.optimizer_steps = optimizer_steps;
  for (const std::string& part : parts) RETURN_IF_ERROR(AddManifestPart(part, &manifest));
  return folder.Publish(manifest);
}

absl::Status SaveFiles(const CheckpointFolder& folder, const CheckpointInfo& info,
                       int64_t optimizer_steps, Communicator& world,
                       const std::function<absl::Status(ManifestPart*)>& write_files,
                       const std::function<absl::Status()>& before_publish) {
  const bool first = world.rank() == 0;
  absl::Status status = Agree(world, first ? folder.Begin() : absl::OkStatus());
  ManifestPart part;
  if (status.ok()) status = Agree(world, write_files(&part));
  if (status.ok()) {
    const std::vector<std::string> parts = world.AllGatherText(ManifestPartText(part));
    const auto publish = [&]() -> absl::Status {
      if (before_publish) RETURN_IF_ERROR(before_publish());
      return PublishParts(folder, info, optimizer_steps, parts);
    };
    status = Agree(world, first ? publish() : absl::OkStatus());
  }
  if (!status.ok() && first) folder.Discard();
  return status;
}

}  // namespace hypermoe
