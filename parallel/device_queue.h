// What NcclCommunicator needs of a device beside NCCL: a stream of its own for communication, its
// order relative to the current stream, and copies. One implementation works with CUDA
// (cuda_queue.cc); that of the tests does everything at once in the host's memory.
//
// "Current stream": that of the calling thread, as LibTorch's operators use it. Failures throw
// c10::Error with CUDA's own text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "parallel/communicator.h"

struct CUstream_st;  // what CUDA's cudaStream_t points to

namespace hypermoe {

// A point in the order of the communication stream's work.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  // Whether all that comes before it has been done. Does not wait.
  virtual bool Done() = 0;
  // What the current stream is given from now on comes after it. The host does not wait.
  virtual void MakeCurrentStreamWait() = 0;
};

class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;

  // Tensors that lie here are the queue's to communicate.
  virtual c10::Device device() const = 0;
  // The communication stream, in NCCL's terms.
  virtual CUstream_st* stream() const = 0;
  // What the communication stream is given from now on comes after all that the current stream has
  // been given so far. The host does not wait.
  virtual void WaitForCurrentStream() = 0;
  // After all that the communication stream has been given so far.
  virtual std::unique_ptr<DeviceEvent> Record() = 0;
  // Keeps the tensor's memory from being used for another until all is done that the communication
  // stream has been given when the tensor is freed.
  virtual void KeepForStream(const at::Tensor& tensor) = 0;
  // Device to device, on the current stream.
  virtual void Copy(void* to, const void* from, int64_t bytes) = 0;
};

// NewNcclCommunicator (nccl_communicator.h) over any queue. All communicators of a process must
// share one, so that NCCL's calls have one order.
std::unique_ptr<Communicator> NewNcclCommunicator(std::unique_ptr<Communicator> host,
                                                  std::shared_ptr<DeviceQueue> queue);

}  // namespace hypermoe
