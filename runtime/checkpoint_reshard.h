// A checkpoint as another number of ranks would have written it.
#pragma once

#include <string>

#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {

struct ReshardOptions {
  std::string checkpoint;   // run folder (its newest) or checkpoint folder
  int ranks = 1;            // that the new one is written for
  int expert_parallel = 0;  // divides `ranks`; 0: the default degree
  std::string output;       // run folder, which must not hold a run
};

// Writes the checkpoint, optimizer state included, the way that so many ranks at that degree would
// have beside training, file by file and byte by byte, as the only one of a new run; its
// config.textproto too.
// Every byte that is read is checked; one tensor is in memory at a time. The files are divided over
// the ranks of `world`, of which there may be any number. Returns the new checkpoint's folder.
// UsageError if `output` holds a run; errors of ResolveNewestCheckpoint and ReadManifest.
// Collective, the same status on every rank.
absl::StatusOr<std::string> ReshardCheckpoint(const ReshardOptions& options, Communicator& world);

// The expert of the tensor of this name in a checkpoint, -1 for one that is no expert's.
int64_t ExpertOfTensor(const std::string& name);

}  // namespace hypermoe
