#include "runtime/checkpoint_snapshot.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "runtime/checkpoint_files.h"

namespace hypermoe {

at::Tensor CheckpointSnapshot::NewHostMemory(const at::Tensor& like) {
  return at::empty(like.sizes(),
                   like.options().device(at::kCPU).pinned_memory(!like.device().is_cpu()));
}

CheckpointSnapshot::CheckpointSnapshot(HostMemory memory) : memory_(std::move(memory)) {}

void CheckpointSnapshot::Take(const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer,
                              const ProcessMesh& mesh) {
  const at::NoGradGuard no_grad;
  tensors_.clear();
  optimizer_steps_ = optimizer.steps();
  size_t copies = 0;
  const auto copy = [&](const at::Tensor& flat) {
    if (copies == flats_.size()) flats_.push_back(memory_(flat));
    return flats_[copies++].copy_(flat);
  };
  for (size_t i = 0; i < buffers.size(); ++i) {
    const bool writes = Writes(mesh, buffers[i].group());
    if (writes) AppendValues(buffers[i], copy(buffers[i].values()), &tensors_);
    for (size_t kind = 0; kind < optimizer.kinds().size(); ++kind) {
      // By all ranks: each gives its part.
      if (optimizer.sharded()) optimizer.GatherState(i, kind, buffers[i].gradients());
      if (!writes) continue;
      const at::Tensor host =
          copy(optimizer.sharded() ? buffers[i].gradients() : optimizer.State(i, kind));
      AppendState(optimizer, i, kind, host, &tensors_);
    }
  }
}

}  // namespace hypermoe
