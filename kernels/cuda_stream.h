// For files that nvcc compiles: where their kernels run, and what a failed launch says.
#pragma once

#include <cuda_runtime_api.h>

namespace hypermoe::cuda {

// The calling thread's current stream, as LibTorch's operators use it.
cudaStream_t CurrentStream();

// Throws c10::Error with CUDA's own text if the last launch of `kernel` failed, such as for want of
// code for this GPU. What fails while it runs is found by a later call.
void CheckLaunch(const char* kernel);

}  // namespace hypermoe::cuda
