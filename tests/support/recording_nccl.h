// A stand-in for libnccl that needs no GPU: it moves host memory over MPI, so that results can be
// checked, and records every call in the order in which it was made. It refuses what NCCL does not
// allow but would not notice: buffers that overlap, messages outside a group, ids that are not
// rank 0's.
//
// As with NCCL, calls between ncclGroupStart and ncclGroupEnd do nothing before the latter.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/support/nccl_records.h"

namespace hypermoe::recording_nccl {

// The calls since the last time, but ncclGetVersion, error texts and polls for errors.
std::vector<NcclCall> Take();
// Records a step that is not NCCL's: the device queue's.
void Note(const std::string& step);

// What ncclGetVersion says; 0: the version of nccl.h.
void SetVersion(int version);
// The next call of that name fails with ncclSystemError and the last error "cable unplugged".
void FailNext(const std::string& name);
// Runs `action` inside the next call of that name.
void InNext(const std::string& name, std::function<void()> action);
// From now on ncclCommGetAsyncError finds ncclRemoteError in the communicators of that name; "": in
// none.
void FailInBackground(const std::string& group);

}  // namespace hypermoe::recording_nccl
