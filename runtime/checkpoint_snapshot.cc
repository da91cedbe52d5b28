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

void CheckpointSnapshot::Take(const std::vector<FlatBuffer>& buffers, const AdamW& optimizer,
                              const ProcessMesh& mesh) {
  const at::NoGradGuard no_grad;
  tensors_.clear();
  optimizer_steps_ = optimizer.steps();
  size_t copies = 0;
  const auto copy = [&](const FlatBuffer& buffer, const std::string& prefix,
                        const at::Tensor& flat) {
    if (copies == flats_.size()) flats_.push_back(memory_(flat));
    const at::Tensor& host = flats_[copies++];
    host.copy_(flat);
    AppendViews(buffer, prefix, host, &tensors_);
  };
  for (size_t i = 0; i < buffers.size(); ++i) {
    const bool writes = Writes(mesh, buffers[i].group());
    if (writes) copy(buffers[i], "", buffers[i].values());
    for (const AdamW::Moment moment : kMoments) {
      // By all ranks: each gives its part.
      if (optimizer.sharded()) optimizer.GatherMoments(i, moment, buffers[i].gradients());
      if (!writes) continue;
      copy(buffers[i], MomentPrefix(moment),
           optimizer.sharded() ? buffers[i].gradients() : optimizer.Moments(i, moment));
    }
  }
}

}  // namespace hypermoe
