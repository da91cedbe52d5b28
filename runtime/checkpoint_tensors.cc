#include "runtime/checkpoint_tensors.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

// Opens a file of the checkpoint and compares its content with the hash in the manifest.
absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenVerified(const std::string& checkpoint,
                                                                    const std::string& name,
                                                                    const FileDigest& expected) {
  const std::string path = absl::StrCat(checkpoint, "/", name);
  ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file,
                   MappedFile::Open(path, MappedFile::Links::kRefuse));
  if (DigestOf(file->data(), file->size()).xxh3_128 != expected.xxh3_128) {
    return DataError(absl::StrCat(
        "file '", Printable(path),
        "' does not have the hash that manifest.json gives: it was damaged or changed"));
  }
  return SafetensorsFile::Open(std::move(file));
}

}  // namespace

CheckpointTensors::CheckpointTensors(std::string checkpoint, CheckpointManifest manifest, Part part)
    : checkpoint_(std::move(checkpoint)), manifest_(std::move(manifest)) {
  for (const auto& [name, tensor] : manifest_.tensors) {
    const bool moment = IsMoment(name);
    if (part == Part::kAll || moment == (part == Part::kMoments))
      entries_[name] = {DtypeOfSafetensors(tensor.dtype), tensor.shape};
  }
}

absl::StatusOr<at::Tensor> CheckpointTensors::Read(const std::string& name) const {
  const auto listed = entries_.find(name);
  if (listed == entries_.end()) {
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint_), " has no tensor '",
                                  Printable(name), "'"));
  }
  const std::string& file_name = manifest_.tensors.at(name).file;
  auto opened = files_.find(file_name);
  if (opened == files_.end()) {
    opened =
        files_
            .emplace(file_name, OpenVerified(checkpoint_, file_name, manifest_.files.at(file_name)))
            .first;
  }
  RETURN_IF_ERROR(opened->second.status());
  ASSIGN_OR_RETURN(const at::Tensor tensor, (*opened->second)->Get(name));
  // The hash covers the file, not that the manifest's words about the tensor are true.
  if (tensor.scalar_type() == listed->second.dtype && tensor.sizes() == listed->second.shape)
    return tensor;
  return DataError(
      absl::StrCat("tensor '", Printable(name), "' is not in its file as manifest.json says"));
}

}  // namespace hypermoe
