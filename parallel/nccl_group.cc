#include "parallel/nccl_group.h"

#include <exception>
#include <utility>

#include "parallel/communicator.h"

namespace hypermoe {
namespace {

// What NCCL says of a failure; `comm` may be null.
std::string ErrorText(ncclResult_t result, ncclComm_t comm) {
  const std::string text = ncclGetErrorString(result);
  const char* detail = ncclGetLastError(comm);
  return detail == nullptr || *detail == '\0' ? text : text + ": " + detail;
}

}  // namespace

NcclGroup::NcclGroup(const std::string& name,
                     const std::function<ncclResult_t(ncclComm_t*, ncclConfig_t*)>& create)
    : name_(name), exceptions_at_start_(std::uncaught_exceptions()) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  config.commName = name_.c_str();  // NCCL keeps the pointer
  const ncclResult_t result = create(&comm_, &config);
  if (result != ncclSuccess) throw CommError(ErrorText(result, nullptr));
}

NcclGroup::~NcclGroup() {
  if (comm_ == nullptr) return;
  // What they return helps nobody any more.
  if (abandoned_ || std::uncaught_exceptions() > exceptions_at_start_) {
    ncclCommAbort(comm_);
  } else {
    ncclCommDestroy(comm_);
  }
}

void NcclGroup::Issue(const char* name, const std::function<ncclResult_t(ncclComm_t)>& call) {
  const std::lock_guard lock(mutex_);
  ThrowIfFailed();
  const ncclResult_t result = call(comm_);
  if (result == ncclSuccess) return;
  const std::string text = ErrorText(result, comm_);
  Abort(std::string(name) + ": " + text);
  throw CommError(text);
}

void NcclGroup::Check() {
  const std::lock_guard lock(mutex_);
  ThrowIfFailed();
}

void NcclGroup::CheckUnlessBusy() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (lock.owns_lock()) ThrowIfFailed();
}

void NcclGroup::ThrowIfFailed() {
  if (comm_ == nullptr) throw CommError("the group was aborted before: " + reason_);
  ncclResult_t background = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &background);
  if (asked == ncclSuccess && (background == ncclSuccess || background == ncclInProgress)) return;
  Abort("work in the background: " + ErrorText(asked != ncclSuccess ? asked : background, comm_));
  throw CommError(reason_);
}

void NcclGroup::Abort(const std::string& reason) {
  reason_ = reason;
  ncclCommAbort(std::exchange(comm_, nullptr));
}

}  // namespace hypermoe
