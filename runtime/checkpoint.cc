#include "runtime/checkpoint.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "runtime/agreement.h"
#include "runtime/file_util.h"
#include "runtime/safetensors.h"

namespace hypermoe {
namespace {

constexpr char kFirstMoment[] = "optimizer.first_moment.";
constexpr char kSecondMoment[] = "optimizer.second_moment.";
constexpr size_t kMaxProblems = 10;

constexpr AdamW::Moment kMoments[] = {AdamW::Moment::kFirst, AdamW::Moment::kSecond};

std::string MomentPrefix(AdamW::Moment moment) {
  return moment == AdamW::Moment::kFirst ? kFirstMoment : kSecondMoment;
}

// The parts of `flat` (values or a moment of the buffer) under `prefix` and their global names.
void AppendViews(const FlatBuffer& buffer, const std::string& prefix, const at::Tensor& flat,
                 std::vector<NamedTensor>* views) {
  for (size_t i = 0; i < buffer.parameters().size(); ++i) {
    for (NamedTensor& view : GlobalViews(*buffer.parameters()[i], buffer.View(flat, i))) {
      views->push_back({prefix + view.name, std::move(view.tensor)});
    }
  }
}

// Each tensor is one rank's to write: experts of the first expert group's, all else of rank 0.
bool Writes(const ProcessMesh& mesh, ParameterGroup group) {
  return group == ParameterGroup::kExpert ? mesh.expert_data->rank() == 0 : mesh.world->rank() == 0;
}

// Writes a file of this rank, and what is in it into `part`. Nothing for no tensors.
absl::Status WriteFile(const CheckpointFolder& folder, const std::string& name,
                       const std::vector<NamedTensor>& tensors, ManifestPart* part) {
  if (tensors.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(part->files[name],
                   WriteSafetensors(absl::StrCat(folder.temporary(), "/", name), tensors, {}));
  for (const auto& [tensor_name, tensor] : tensors) {
    part->tensors[tensor_name] = {name, SafetensorsDtype(tensor.scalar_type()),
                                  tensor.sizes().vec()};
  }
  return absl::OkStatus();
}

// One file for all that this rank writes; sharded moments, which the ranks put together for those
// that write, go into files of their own, one after the other, so that no more than one is in
// memory.
absl::Status WriteRankFiles(const CheckpointFolder& folder, const std::vector<FlatBuffer>& buffers,
                            const AdamW& optimizer, const ProcessMesh& mesh, ManifestPart* part) {
  const std::string rank = absl::StrFormat("rank_%05d", mesh.world->rank());
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (!Writes(mesh, buffers[i].group())) continue;
    AppendViews(buffers[i], "", buffers[i].values(), &tensors);
    for (const AdamW::Moment moment : kMoments) {
      if (optimizer.sharded()) continue;
      AppendViews(buffers[i], MomentPrefix(moment), optimizer.Moments(i, moment), &tensors);
    }
  }
  absl::Status status = WriteFile(folder, rank + ".safetensors", tensors, part);
  for (size_t i = 0; i < buffers.size() && optimizer.sharded(); ++i) {
    for (const AdamW::Moment moment : kMoments) {
      // By all ranks, also where writing has failed: the others wait for it.
      const at::Tensor moments = optimizer.Moments(i, moment);
      if (!status.ok() || !Writes(mesh, buffers[i].group())) continue;
      std::vector<NamedTensor> views;
      AppendViews(buffers[i], MomentPrefix(moment), moments, &views);
      status = WriteFile(folder, absl::StrCat(rank, ".", MomentPrefix(moment), i, ".safetensors"),
                         views, part);
    }
  }
  return status;
}

absl::Status Publish(const CheckpointFolder& folder, const CheckpointInfo& info,
                     int64_t optimizer_steps, const std::vector<std::string>& parts) {
  CheckpointManifest manifest;
  manifest.info = info;
  manifest.optimizer_steps = optimizer_steps;
  for (const std::string& part : parts) RETURN_IF_ERROR(AddManifestPart(part, &manifest));
  return folder.Publish(manifest);
}

// What is wrong with a checkpoint, all of it in one error.
class Problems {
 public:
  void Add(const std::string& problem) { list_.push_back(problem); }

  absl::Status ToStatus(const std::string& checkpoint) const {
    if (list_.empty()) return absl::OkStatus();
    std::vector<std::string> shown(list_.begin(),
                                   list_.begin() + std::min(list_.size(), kMaxProblems));
    std::string message =
        absl::StrCat("checkpoint ", Printable(checkpoint),
                     " does not fit this model or is damaged: ", absl::StrJoin(shown, "; "));
    if (list_.size() > shown.size())
      absl::StrAppend(&message, "; and ", list_.size() - shown.size(), " more");
    return DataError(message);
  }

 private:
  std::vector<std::string> list_;
};

std::string Describe(const std::string& dtype, at::IntArrayRef shape) {
  return absl::StrCat(dtype, "[", absl::StrJoin(shape, ","), "]");
}

// The names of the whole model's parameters: this rank's, with every expert's id in place of its
// own.
std::set<std::string> ModelNames(const std::vector<FlatBuffer>& buffers, int64_t num_experts) {
  std::set<std::string> names;
  for (const FlatBuffer& buffer : buffers) {
    for (const Parameter* parameter : buffer.parameters()) {
      if (parameter->group != ParameterGroup::kExpert) names.insert(parameter->name);
      for (int64_t e = 0; parameter->group == ParameterGroup::kExpert && e < num_experts; ++e) {
        names.insert(absl::StrReplaceAll(parameter->name, {{"{e}", absl::StrCat(e)}}));
      }
    }
  }
  return names;
}

void FindUnexpected(const CheckpointManifest& manifest, const std::set<std::string>& model_names,
                    Problems* problems) {
  for (const auto& [name, tensor] : manifest.tensors) {
    absl::string_view parameter = name;
    if (!absl::ConsumePrefix(&parameter, kFirstMoment))
      absl::ConsumePrefix(&parameter, kSecondMoment);
    if (!model_names.contains(std::string(parameter))) {
      problems->Add(
          absl::StrCat("unexpected tensor '", Printable(name), "', which the model does not have"));
    }
  }
}

// A tensor that a checkpoint must have, and where its content belongs.
struct Slot {
  NamedTensor wanted;  // the parameter's value: destination, or for a moment its shape and dtype
  size_t buffer = 0;
  std::optional<AdamW::Moment> moment;
};

std::vector<Slot> SlotsOf(const std::vector<FlatBuffer>& buffers, bool with_moments) {
  std::vector<Slot> slots;
  for (size_t i = 0; i < buffers.size(); ++i) {
    std::vector<NamedTensor> values;
    AppendViews(buffers[i], "", buffers[i].values(), &values);
    for (const NamedTensor& value : values) slots.push_back({value, i, std::nullopt});
    for (const AdamW::Moment moment : kMoments) {
      for (const NamedTensor& value : values) {
        if (with_moments)
          slots.push_back({{MomentPrefix(moment) + value.name, value.tensor}, i, moment});
      }
    }
  }
  return slots;
}

void FillSlot(const Slot& slot, const at::Tensor& source, AdamW* optimizer) {
  const at::Tensor& value = slot.wanted.tensor;
  if (!slot.moment.has_value()) {
    value.copy_(source);
    return;
  }
  // Values are views of the buffer's flat array, which starts its storage.
  optimizer->SetMoments(slot.buffer, *slot.moment, value.storage_offset(), source);
}

// Whether the manifest has `wanted` in the shape and dtype that this rank holds it in.
bool CheckListed(const CheckpointManifest& manifest, const NamedTensor& wanted,
                 Problems* problems) {
  const auto found = manifest.tensors.find(wanted.name);
  if (found == manifest.tensors.end()) {
    problems->Add(absl::StrCat("missing tensor '", wanted.name, "'"));
    return false;
  }
  const std::string stored = Describe(found->second.dtype, found->second.shape);
  const std::string expected =
      Describe(SafetensorsDtype(wanted.tensor.scalar_type()), wanted.tensor.sizes());
  if (stored == expected) return true;
  problems->Add(
      absl::StrCat("tensor '", wanted.name, "' is ", Printable(stored), ", expected ", expected));
  return false;
}

// Opens a file of the checkpoint and compares its content with the hash in the manifest.
absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenVerified(const std::string& checkpoint,
                                                                    const std::string& name,
                                                                    const FileDigest& expected) {
  const std::string path = absl::StrCat(checkpoint, "/", name);
  ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file,
                   MappedFile::Open(path, MappedFile::Links::kRefuse));
  if (DigestOf(file->data(), file->size()).xxh3_128 != expected.xxh3_128) {
    return DataError(absl::StrCat(
        "file '", name,
        "' does not have the hash that manifest.json gives: it was damaged or changed"));
  }
  return SafetensorsFile::Open(std::move(file));
}

// Files of a checkpoint, each opened and verified once.
class VerifiedFiles {
 public:
  VerifiedFiles(const std::string& checkpoint, const CheckpointManifest& manifest,
                Problems* problems)
      : checkpoint_(checkpoint), manifest_(manifest), problems_(problems) {}

  // The tensor as the file has it; undefined if there is a problem, which has been added.
  at::Tensor Get(const std::string& name) {
    const std::string& file_name = manifest_.tensors.at(name).file;
    auto [position, is_new] = files_.try_emplace(file_name);
    if (is_new) {
      auto file = OpenVerified(checkpoint_, file_name, manifest_.files.at(file_name));
      if (file.ok()) {
        position->second = *std::move(file);
      } else {
        problems_->Add(std::string(file.status().message()));
      }
    }
    if (position->second == nullptr) return {};
    auto tensor = position->second->Get(name);
    if (tensor.ok()) return *std::move(tensor);
    problems_->Add(std::string(tensor.status().message()));
    return {};
  }

 private:
  const std::string& checkpoint_;
  const CheckpointManifest& manifest_;
  Problems* problems_;
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> files_;
};

}  // namespace

absl::Status SaveCheckpoint(const std::string& run_dir, const CheckpointInfo& info,
                            const std::vector<FlatBuffer>& buffers, const AdamW& optimizer,
                            const ProcessMesh& mesh) {
  const at::NoGradGuard no_grad;
  Communicator& world = *mesh.world;
  const CheckpointFolder folder(run_dir, info.step);
  // After every phase all ranks agree, so that none is still writing when rank 0 goes on or cleans
  // up.
  absl::Status status = Agree(world, world.rank() == 0 ? folder.Begin() : absl::OkStatus());
  ManifestPart part;
  if (status.ok()) status = Agree(world, WriteRankFiles(folder, buffers, optimizer, mesh, &part));
  if (status.ok()) {
    const std::vector<std::string> parts = world.AllGatherText(ManifestPartText(part));
    status = Agree(world, world.rank() == 0 ? Publish(folder, info, optimizer.steps(), parts)
                                            : absl::OkStatus());
  }
  if (!status.ok() && world.rank() == 0) folder.Discard();
  return status;
}

absl::Status LoadCheckpoint(const std::string& checkpoint, int64_t num_experts,
                            std::vector<FlatBuffer>& buffers, AdamW* optimizer) {
  const at::NoGradGuard no_grad;
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(checkpoint));
  Problems problems;
  FindUnexpected(manifest, ModelNames(buffers, num_experts), &problems);
  VerifiedFiles files(checkpoint, manifest, &problems);
  std::vector<std::pair<Slot, at::Tensor>> sources;
  for (Slot& slot : SlotsOf(buffers, optimizer != nullptr)) {
    const NamedTensor& wanted = slot.wanted;
    if (!CheckListed(manifest, wanted, &problems)) continue;
    const at::Tensor source = files.Get(wanted.name);
    if (!source.defined()) continue;
    // The hash covers the file, not that the manifest's words about the tensor are true.
    if (source.scalar_type() != wanted.tensor.scalar_type() ||
        source.sizes() != wanted.tensor.sizes()) {
      problems.Add(
          absl::StrCat("tensor '", wanted.name, "' is not in its file as manifest.json says"));
      continue;
    }
    sources.emplace_back(std::move(slot), source);
  }
  RETURN_IF_ERROR(problems.ToStatus(checkpoint));
  for (const auto& [slot, source] : sources) FillSlot(slot, source, optimizer);
  if (optimizer != nullptr) optimizer->set_steps(manifest.optimizer_steps);
  return absl::OkStatus();
}

}  // namespace hypermoe
