#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include "parallel/device_queue.h"
#include "parallel/nccl_communicator.h"

namespace hypermoe {
namespace {

using c10::cuda::CUDAStream;
using c10::cuda::getCurrentCUDAStream;

class CudaEvent final : public DeviceEvent {
 public:
  explicit CudaEvent(const CUDAStream& stream) { event_.record(stream); }
  bool Done() override { return event_.query(); }
  void MakeCurrentStreamWait() override {
    event_.block(getCurrentCUDAStream(event_.device_index()));
  }

 private:
  c10::cuda::CUDAEvent event_;
};

class CudaQueue final : public DeviceQueue {
 public:
  c10::Device device() const override { return stream_.device(); }
  CUstream_st* stream() const override { return stream_.stream(); }

  void WaitForCurrentStream() override {
    // A wait is for what was recorded when it was asked for, so one event serves all.
    given_.record(getCurrentCUDAStream(stream_.device_index()));
    given_.block(stream_);
  }
  std::unique_ptr<DeviceEvent> Record() override { return std::make_unique<CudaEvent>(stream_); }
  void KeepForStream(const at::Tensor& tensor) override {
    c10::cuda::CUDACachingAllocator::recordStream(tensor.storage().data_ptr(), stream_);
  }
  void Copy(void* to, const void* from, int64_t bytes) override {
    C10_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                                   getCurrentCUDAStream(stream_.device_index())));
  }

 private:
  // LibTorch hands out the streams of a pool again and again; nothing else here takes from this
  // one.
  CUDAStream stream_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/true);
  c10::cuda::CUDAEvent given_;
};

}  // namespace

std::unique_ptr<Communicator> NewNcclCommunicator(std::unique_ptr<Communicator> host) {
  // Never freed: when statics are, CUDA may be gone already.
  static auto* const queue = new std::shared_ptr<DeviceQueue>(std::make_shared<CudaQueue>());
  const c10::DeviceIndex current = c10::cuda::current_device();
  TORCH_CHECK((*queue)->device().index() == current, "NewNcclCommunicator: the current GPU is ",
              static_cast<int>(current), ", but this process communicates on ",
              (*queue)->device().str(), ": a process has one");
  return NewNcclCommunicator(std::move(host), *queue);
}

}  // namespace hypermoe
