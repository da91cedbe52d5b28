// A copy in the host's memory of what this rank writes into a checkpoint, so that training can go
// on while it is written.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "parallel/flat_buffer.h"
#include "parallel/optimizer.h"
#include "parallel/process_mesh.h"

namespace hypermoe {

class CheckpointSnapshot {
 public:
  // Where a tensor is copied to: host memory of its size and dtype.
  using HostMemory = std::function<at::Tensor(const at::Tensor& like)>;
  // Page-locked for tensors of a GPU, from which copying is faster.
  static at::Tensor NewHostMemory(const at::Tensor& like);

  // `memory` is for tests.
  explicit CheckpointSnapshot(HostMemory memory = NewHostMemory);

  // Replaces the content by what `buffers` and `optimizer` hold now; the memory is taken the first
  // time and kept. Returns when all is copied, from a GPU too. With a sharded optimizer, whose
  // state is gathered, collective over the groups of its buckets, and the gradients are lost: the
  // state is put together there. Otherwise local.
  void Take(const std::vector<FlatBuffer>& buffers, const Optimizer& optimizer,
            const ProcessMesh& mesh);

  // Under their names in a checkpoint, sharing this object's memory.
  const std::vector<NamedTensor>& tensors() const { return tensors_; }
  int64_t optimizer_steps() const { return optimizer_steps_; }

 private:
  HostMemory memory_;
  std::vector<at::Tensor> flats_;  // in the order of Take's copies
  std::vector<NamedTensor> tensors_;
  int64_t optimizer_steps_ = 0;
};

}  // namespace hypermoe
