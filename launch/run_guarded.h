// The bridge from exceptions, by which the layers below runtime fail, to absl::Status: the only
// place that catches them.
#pragma once

#include <functional>

#include "absl/status/status.h"

namespace hypermoe {

struct Outcome {
  absl::Status status;
  // True if `body` threw. Then only this rank knows: others may be waiting for it, and it must
  // abort the job. A status that was returned is the same on every rank, by the contracts of
  // runtime.
  bool thrown = false;
};

// Calls `body`. CommError becomes CommunicationError, an absl::BadStatusOrAccess its status,
// everything else (bad_alloc, c10::Error without its stack trace, other exceptions) InternalError.
Outcome RunGuarded(const std::function<absl::Status()>& body);

}  // namespace hypermoe
