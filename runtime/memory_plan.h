// How much memory a rank needs at its peak, computed from the configuration before anything is
// allocated: what decides whether a model fits.
#pragma once

#include <cstdint>
#include <string>

#include "configs/run.pb.h"

namespace hypermoe {

// Bytes of the rank that has the most, at the moment of a training step when it takes the most,
// beyond what the process takes when the trainer is built. Of tokens that travel to experts without
// a capacity, the busiest rank is taken to receive a quarter more than it has.
struct MemoryPlan {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t moments = 0;        // of the optimizer; ZeRO-1 keeps a share
  int64_t hyper_experts = 0;  // generated matrices and their gradients
  // Kept for backward, of one micro-batch, at that moment; in bfloat16 with copies of the weights.
  int64_t activations = 0;
  int64_t workspace = 0;      // made and freed again, at that moment
  int64_t communication = 0;  // scratch of the reductions that run beside backward
  int64_t allocator = 0;      // freed, and too small or scattered for what is asked for next
  // The copy of what this rank writes into a checkpoint, where it is written beside training.
  int64_t snapshot = 0;
  int64_t program = 0;  // code and buffers of LibTorch and MPI that steps touch, compiled kernels
  int64_t total() const {
    return parameters + gradients + moments + hyper_experts + activations + workspace +
           communication + allocator + snapshot + program;
  }
  // With mesh.device cuda, the snapshot's bytes of the host's memory, page-locked; not in total().
  int64_t host_snapshot = 0;
};

// `expert_degree` divides `world_size`; `config` has passed ValidateConfig. Holds for a process
// that has called UseMallocForTensors and LimitKernelCaches (process_memory.h). Mapped token files
// are not counted.
MemoryPlan PlanMemory(const RunConfig& config, int world_size, int expert_degree);

// "2.10 GiB: parameters 203 MiB, gradients 203 MiB, ..."; parts that are 0 are left out.
std::string DescribeMemory(const MemoryPlan& plan);

// "812 KiB", "203 MiB", "2.10 GiB".
std::string FormatBytes(int64_t bytes);

}  // namespace hypermoe
