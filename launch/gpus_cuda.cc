// The part of gpus.h that needs CUDA.
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include "launch/gpus.h"

namespace hypermoe {

GpuInventory FindGpus() {
  GpuInventory gpus;
  gpus.built_with_cuda = true;
  if (cudaDriverGetVersion(&gpus.driver_version) != cudaSuccess) gpus.driver_version = 0;
  if (cudaRuntimeGetVersion(&gpus.toolkit_version) != cudaSuccess) gpus.toolkit_version = 0;
  const cudaError_t error = cudaGetDeviceCount(&gpus.count);
  if (error != cudaSuccess) {
    gpus.count = 0;
    gpus.problem = cudaGetErrorString(error);
    cudaGetLastError();  // it would be found by the next launch
  }
  cudaDeviceProp properties;
  if (gpus.count > 0 && cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
    gpus.name = properties.name;
  }
  return gpus;
}

void UseGpu(int index) { c10::cuda::set_device(static_cast<c10::DeviceIndex>(index)); }

}  // namespace hypermoe
