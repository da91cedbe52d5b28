// What all ranks of a job must have alike before they train together: ranks on other machines may
// run another program, or find other files under the same names, and would then hang or quietly
// compute something else.
#pragma once

#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {

struct SharedFact {
  std::string name;    // "the configuration"
  std::string value;   // text without zero bytes
  std::string remedy;  // what to do where ranks differ: "give all ranks the same --config file"
};

// Collective over `world`; all ranks give the same facts in the same order. OK if every rank's
// values are those of rank 0; otherwise, on every rank, a ConfigError that names the lowest rank
// that differs, the first fact in which it does, and the first line of the value that differs.
absl::Status CheckAlike(Communicator& world, const std::vector<SharedFact>& facts);

}  // namespace hypermoe
