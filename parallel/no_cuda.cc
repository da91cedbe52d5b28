// What stands in for NCCL in programs for CPUs.
#include <c10/util/Exception.h>

#include "parallel/nccl_communicator.h"

namespace hypermoe {

std::unique_ptr<Communicator> NewNcclCommunicator(std::unique_ptr<Communicator> /*host*/) {
  TORCH_CHECK(false, "NewNcclCommunicator: this program was built without CUDA");
}

}  // namespace hypermoe
