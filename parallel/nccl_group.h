// One NCCL communicator and how it ends, for nccl_communicator.cc alone: this header includes
// nccl.h. Errors are CommError without the group and rank, which the Communicator adds.
#pragma once

#include <nccl.h>

#include <functional>
#include <mutex>
#include <string>

namespace hypermoe {

// Issues the calls that `calls` makes, which returns the first failure, as one.
template <typename Calls>
ncclResult_t NcclGrouped(const Calls& calls) {
  const ncclResult_t started = ncclGroupStart();
  if (started != ncclSuccess) return started;
  const ncclResult_t issued = calls();
  const ncclResult_t ended = ncclGroupEnd();  // after a failure too, or the next calls wait for it
  return issued != ncclSuccess ? issued : ended;
}

// Shared by a Communicator and the reductions it has started, so that it ends after the last of
// them.
class NcclGroup {
 public:
  // Collective: `create` makes the communicator. CommError if it fails.
  NcclGroup(const std::string& name,
            const std::function<ncclResult_t(ncclComm_t*, ncclConfig_t*)>& create);
  // Aborts with an exception on its way or after Abandon: other ranks may never do their part of
  // what is under way, and ncclCommDestroy would wait for it.
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  // Makes the call of that name. CommError if it fails, or if the group has before.
  void Issue(const char* name, const std::function<ncclResult_t(ncclComm_t)>& call);
  // CommError if the group has failed, which NCCL may have found in the background since. The first
  // to find it aborts the group.
  void Check();
  // The same for any other thread. Does nothing while a call is being made, for that may be waiting
  // for other ranks.
  void CheckUnlessBusy();
  // Nobody will wait for what is under way.
  void Abandon() { abandoned_ = true; }

 private:
  void ThrowIfFailed();
  void Abort(const std::string& reason);

  const std::string name_;
  const int exceptions_at_start_;
  bool abandoned_ = false;
  std::mutex mutex_;           // of what follows
  ncclComm_t comm_ = nullptr;  // null: aborted
  std::string reason_;
};

}  // namespace hypermoe
