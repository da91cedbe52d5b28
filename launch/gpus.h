// The GPUs of this machine, and which one a rank works on.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "configs/run.pb.h"
#include "launch/distributed_init.h"
#include "parallel/communicator.h"

namespace hypermoe {

// What CUDA says about this machine.
struct GpuInventory {
  bool built_with_cuda = false;  // this program; without, the rest is empty
  int driver_version = 0;        // newest CUDA that the driver knows, as 13000; 0: no driver
  int toolkit_version = 0;       // CUDA of the library that this process has loaded
  int count = 0;                 // GPUs that it may use
  std::string name;              // of the first, "NVIDIA H200"
  std::string problem;           // CUDA's own words if it could not count them
};
// Makes no context on a GPU.
GpuInventory FindGpus();

// The GPU of a rank: its number on the machine, or with host-staged transport that modulo the
// number of GPUs. An error if CUDA has no GPU for it, never another device instead.
absl::StatusOr<int> ChooseGpu(const MeshConfig& mesh, const GpuInventory& gpus,
                              const MachinePlace& place);

// The world as `mesh` wants it: itself for cpu; for cuda this process's GPU becomes the current
// one, and the result takes tensors there. Collective; the same status on every rank.
absl::StatusOr<std::shared_ptr<Communicator>> WorldOnDevice(std::shared_ptr<Communicator> world,
                                                            const MeshConfig& mesh);

// Lines for `hypermoe env`.
std::string GpuText(const GpuInventory& gpus);

// Makes GPU `index` the current one of the calling thread.
void UseGpu(int index);

}  // namespace hypermoe
