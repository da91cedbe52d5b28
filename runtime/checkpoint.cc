#include "runtime/checkpoint.h"

#include <ATen/core/grad_mode.h>

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "parallel/progress_marks.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint_files.h"
#include "runtime/checkpoint_tensors.h"
#include "runtime/file_util.h"
#include "runtime/fit_problems.h"
#include "runtime/handshake.h"
#include "runtime/safetensors.h"

namespace hypermoe {
namespace {

constexpr size_t kMaxProblems = 10;

absl::Status WriteViews(const CheckpointFolder& folder, const std::string& file,
                        const std::vector<NamedTensor>& tensors, ManifestPart* part) {
  std::vector<std::string> names;
  for (const NamedTensor& named : tensors) names.push_back(named.name);
  return WriteTensors(folder, file, names, TensorsInMemory(tensors), part);
}

// One file for all that this rank writes; sharded state, which the ranks put together for those
// that write, goes into files of its own, one after the other, as the gradients have room for one.
absl::Status WriteRankFiles(const CheckpointFolder& folder, const std::vector<FlatBuffer>& buffers,
                            const Optimizer& optimizer, const ProcessMesh& mesh,
                            ManifestPart* part) {
  const std::string rank = RankFile(mesh.world->rank());
  const size_t kinds = optimizer.kinds().size();
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (!Writes(mesh, buffers[i].group())) continue;
    AppendValues(buffers[i], buffers[i].values(), &tensors);
    for (size_t kind = 0; kind < kinds && !optimizer.sharded(); ++kind)
      AppendState(optimizer, i, kind, optimizer.State(i, kind), &tensors);
  }
  absl::Status status = WriteViews(folder, rank, tensors, part);
  for (size_t i = 0; i < buffers.size() && optimizer.sharded(); ++i) {
    for (size_t kind = 0; kind < kinds; ++kind) {
      // By all ranks, also where writing has failed: the others wait for it.
      const at::Tensor& state = buffers[i].gradients();
      optimizer.GatherState(i, kind, state);
      if (!status.ok() || !Writes(mesh, buffers[i].group())) continue;
      std::vector<NamedTensor> views;
      AppendState(optimizer, i, kind, state, &views);
      status = WriteViews(folder, absl::StrCat(rank, ".", StatePrefix(optimizer.kinds()[kind]), i),
                          views, part);
    }
  }
  return status;
}

std::string Describe(const std::string& dtype, at::IntArrayRef shape) {
  return absl::StrCat(dtype, ShapeText(shape));
}

// The names of all tensors of a checkpoint of the whole model.
std::set<std::string> WantedNames(const std::vector<FlatBuffer>& buffers,
                                  const Optimizer& optimizer, int64_t num_experts) {
  std::set<std::string> names;
  for (const FlatBuffer& buffer : buffers) {
    for (const Parameter* parameter : buffer.parameters()) {
      ForEachTensor(*parameter, num_experts, [&](const std::string& name, at::IntArrayRef) {
        names.insert(name);
        for (size_t kind = 0; kind < optimizer.kinds().size(); ++kind) {
          if (optimizer.StateShape(*parameter, kind))
            names.insert(StatePrefix(optimizer.kinds()[kind]) + name);
        }
      });
    }
  }
  return names;
}

void FindUnexpected(const TensorSource& tensors, const std::set<std::string>& wanted,
                    FitProblems* problems) {
  for (const auto& [name, tensor] : tensors.entries()) {
    if (!wanted.contains(name)) problems->Unexpected(name);
  }
}

// A tensor that a checkpoint must have, and where its content belongs.
struct Slot {
  // Of the shape and dtype that it must have, and lies in its array, which starts its storage,
  // where the content belongs. A value: the array is the buffer's. State: one like the optimizer's.
  NamedTensor wanted;
  size_t buffer = 0;
  std::optional<size_t> kind;  // of state
};

std::vector<Slot> SlotsOf(const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer) {
  std::vector<Slot> slots;
  for (size_t i = 0; i < buffers.size(); ++i) {
    std::vector<NamedTensor> values;
    AppendValues(buffers[i], buffers[i].values(), &values);
    for (const NamedTensor& value : values) slots.push_back({value, i, std::nullopt});
    for (size_t kind = 0; kind < optimizer.kinds().size(); ++kind) {
      std::vector<NamedTensor> state;
      AppendState(optimizer, i, kind,
                  optimizer.sharded() ? buffers[i].gradients() : optimizer.State(i, kind), &state);
      for (const NamedTensor& part : state) slots.push_back({part, i, kind});
    }
  }
  return slots;
}

void FillSlot(const Slot& slot, const at::Tensor& source, Optimizer& optimizer) {
  const at::Tensor& wanted = slot.wanted.tensor;
  if (!slot.kind.has_value()) {
    wanted.copy_(source);
    return;
  }
  const bool transposed = !wanted.is_contiguous();  // Parameter::named_transposed
  optimizer.SetState(slot.buffer, *slot.kind, wanted.storage_offset(),
                     transposed ? source.transpose(-2, -1) : source);
}

// Whether `tensors` have `wanted` in the shape and dtype that this rank holds it in.
bool CheckListed(const TensorSource& tensors, const NamedTensor& wanted, FitProblems* problems) {
  const auto found = tensors.entries().find(wanted.name);
  if (found == tensors.entries().end()) {
    problems->Missing(wanted.name);
    return false;
  }
  const std::string stored = Describe(SafetensorsDtype(found->second.dtype), found->second.shape);
  const std::string expected =
      Describe(SafetensorsDtype(wanted.tensor.scalar_type()), wanted.tensor.sizes());
  if (stored != expected) problems->Misfit(wanted.name, stored, expected);
  return stored == expected;
}

using Source = std::pair<Slot, at::Tensor>;

// Reads and checks what belongs to this rank. An error is one that is no damage.
absl::StatusOr<std::vector<Source>> ReadSlots(const TensorSource& tensors,
                                              const std::vector<FlatBuffer>& buffers,
                                              const Optimizer& optimizer, FitProblems* problems) {
  std::vector<Source> sources;
  std::set<std::string> seen;  // one piece of damage is that of each of its tensors
  for (Slot& slot : SlotsOf(buffers, optimizer)) {
    if (!CheckListed(tensors, slot.wanted, problems)) continue;
    const absl::StatusOr<at::Tensor> source = tensors.Read(slot.wanted.name);
    MarkProgress();
    if (source.ok()) {
      sources.emplace_back(std::move(slot), *source);
    } else if (ExitCodeOf(source.status()) != ExitCode::kBadData) {
      return source.status();
    } else if (seen.emplace(source.status().message()).second) {
      problems->Add(std::string(source.status().message()));
    }
  }
  return sources;
}

}  // namespace

absl::Status SaveCheckpoint(const std::string& run_dir, const CheckpointInfo& info,
                            const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer,
                            const ProcessMesh& mesh) {
  const at::NoGradGuard no_grad;
  const CheckpointFolder folder(run_dir, info.step);
  return SaveFiles(folder, info, optimizer.steps(), *mesh.world, [&](ManifestPart* part) {
    return WriteRankFiles(folder, buffers, optimizer, mesh, part);
  });
}

absl::Status SaveParameters(const std::string& run_dir, const CheckpointInfo& info,
                            const TensorSource& parameters, Communicator& world) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : parameters.entries()) names.push_back(name);
  const RowRange own = RowsOfRank(static_cast<int64_t>(names.size()), world.size(), world.rank());
  const std::vector<std::string> mine(names.begin() + own.begin, names.begin() + own.end);
  const CheckpointFolder folder(run_dir, info.step);
  return SaveFiles(folder, info, 0, world, [&](ManifestPart* part) {
    return WriteTensors(folder, RankFile(world.rank()), mine, parameters, part);
  });
}

absl::Status LoadCheckpoint(const std::string& checkpoint, int64_t num_experts,
                            std::vector<FlatBuffer>& buffers, Optimizer& optimizer,
                            Communicator& world, Digests digests) {
  const at::NoGradGuard no_grad;
  absl::StatusOr<CheckpointManifest> manifest = ReadManifest(checkpoint, digests);
  RETURN_IF_ERROR(Agree(world, manifest.status()));
  RETURN_IF_ERROR(
      CheckAlike(world, {{absl::StrCat("the manifest of ", checkpoint), manifest->sha256,
                          "give all machines the same checkpoint, or a folder that they share"}}));
  const int64_t optimizer_steps = manifest->optimizer_steps;
  const CheckpointTensors tensors(checkpoint, *std::move(manifest), CheckpointTensors::Part::kAll,
                                  digests);
  FitProblems problems(kMaxProblems);
  FindUnexpected(tensors, WantedNames(buffers, optimizer, num_experts), &problems);
  const absl::StatusOr<std::vector<Source>> sources =
      ReadSlots(tensors, buffers, optimizer, &problems);
  absl::Status status = sources.status();
  status.Update(problems.ToStatus(absl::StrCat("checkpoint ", Printable(checkpoint),
                                               " does not fit this model or is damaged")));
  RETURN_IF_ERROR(Agree(world, status));
  for (const auto& [slot, source] : *sources) {
    FillSlot(slot, source, optimizer);
    MarkProgress();
  }
  optimizer.set_steps(optimizer_steps);
  return absl::OkStatus();
}

}  // namespace hypermoe
