// Collectives of tensors on a GPU over a transport that knows only the host's memory: each tensor
// is copied to pinned memory, moved from there and copied back. Slow, but several ranks may then
// share a GPU, which NCCL does not allow, and sums have the bits that they have on CPUs.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace hypermoe {

// A communicator of `host`'s group and name whose tensors lie on `device`; others are handed to
// `host` as they are. Every call waits for what has been queued on the current stream. With the CPU
// as device, tensors there are copied all the same, so that this can be tested without a GPU.
std::unique_ptr<Communicator> NewHostStagedCommunicator(std::unique_ptr<Communicator> host,
                                                        at::Device device);

}  // namespace hypermoe
