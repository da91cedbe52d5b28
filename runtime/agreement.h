// One outcome for all ranks: no rank goes on, or waits, where another has failed.
#pragma once

#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {

// Collective over `world`. OK if every rank's `local` is; otherwise, on every rank, the error of
// the lowest failing rank, with "rank R: " before its message unless all ranks failed alike.
absl::Status Agree(Communicator& world, const absl::Status& local);

// Collective over `world`, one all-reduce of a number: whether `mine` is true on any rank.
bool AnyRank(Communicator& world, bool mine);

}  // namespace hypermoe
