// The part of gpus.h that needs CUDA, for programs without it.
#include <c10/util/Exception.h>

#include "launch/gpus.h"

namespace hypermoe {

GpuInventory FindGpus() { return {}; }

void UseGpu(int index) { TORCH_CHECK(false, "GPU ", index, ": this program is for CPUs"); }

}  // namespace hypermoe
