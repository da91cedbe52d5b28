// Collectives of tensors on a GPU, over NCCL.
//
// Beside the promises of communicator.h:
// - Tensors on the CPU, counts, texts and barriers go over the host communicator it was made from.
// - All calls of a process run on one stream of its own, in the order in which they were made, and
//   so at most one at a time, whatever their groups.
// - A sum has the same bits on every rank and in every run with the same NCCL, GPUs, settings of
//   NCCL and sizes. Unlike over MPI, the order of its additions is NCCL's choice: its bits may
//   depend on how an array is cut into calls and on whether it is scattered.
// - An exchange's empty parts and what a rank has for itself cost no message.
// - Where one call fails, or NCCL reports a failure in the background, the group is aborted, which
//   ends its work on the GPU, and every later call on it throws the reason.
// - Split waits until the process's collectives are done.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace hypermoe {

// A communicator of `host`'s group and name, on the calling thread's current GPU, which must be the
// same at each call in a process. Collective: throws CommError on all ranks if their NCCL versions
// differ or NCCL cannot start; c10::Error in a program that was built without CUDA.
std::unique_ptr<Communicator> NewNcclCommunicator(std::unique_ptr<Communicator> host);

}  // namespace hypermoe
