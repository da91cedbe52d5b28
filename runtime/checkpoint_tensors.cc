#include "runtime/checkpoint_tensors.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/safetensors.h"

namespace hypermoe {

CheckpointTensors::CheckpointTensors(std::string checkpoint, CheckpointManifest manifest, Part part,
                                     Digests digests)
    : checkpoint_(std::move(checkpoint)), manifest_(std::move(manifest)), digests_(digests) {
  for (const auto& [name, tensor] : manifest_.tensors) {
    const bool moment = IsMoment(name);
    if (part == Part::kAll || moment == (part == Part::kMoments))
      entries_[name] = {DtypeOfSafetensors(tensor.dtype), tensor.shape};
  }
}

absl::StatusOr<at::Tensor> CheckpointTensors::Read(const std::string& name) const {
  if (!entries_.contains(name)) {
    return DataError(absl::StrCat("checkpoint ", Printable(checkpoint_), " has no tensor '",
                                  Printable(name), "'"));
  }
  const std::string& file_name = manifest_.tensors.at(name).file;
  auto opened = files_.find(file_name);
  if (opened == files_.end()) {
    opened =
        files_.emplace(file_name, CheckpointFile::Open(checkpoint_, file_name, manifest_, digests_))
            .first;
  }
  RETURN_IF_ERROR(opened->second.status());
  return (*opened->second)->Read(name);
}

}  // namespace hypermoe
