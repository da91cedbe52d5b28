#include "kernels/cuda_stream.h"

#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

namespace hypermoe::cuda {

cudaStream_t CurrentStream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void CheckLaunch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  TORCH_CHECK(error == cudaSuccess, kernel, " could not be launched: ", cudaGetErrorString(error));
}

}  // namespace hypermoe::cuda
