// What the stand-in for libnccl (recording_nccl.h) writes down, and whether the ranks of a group
// made calls that fit together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hypermoe {

struct NcclCall {
  std::string name;   // "ncclAllReduce", or of a step of the device queue "record"
  std::string group;  // commName; "-" for calls without a communicator
  int64_t count = 0;  // as given: elements
  std::string type = "-", op = "-";
  int peer = -1;  // root of a collective, other end of a message

  bool operator==(const NcclCall&) const = default;
};

// "ncclReduce of 12 float32 (sum), peer 1, in expert"
std::string TextOf(const NcclCall& call);

// One line a call, for Communicator::AllGatherText, and back.
std::string Serialized(const std::vector<NcclCall>& calls);
std::vector<NcclCall> Parsed(const std::string& text);

// What is wrong with what the ranks of one group called, by rank; "" if nothing is. All calls but
// messages must be the same in the same order on all ranks, group begins and ends included; between
// two such calls the messages that p sends to q must be those that q receives from p, in number,
// order, count and type; nobody writes to itself, and no message is empty.
std::string Difference(const std::vector<std::vector<NcclCall>>& by_rank);

}  // namespace hypermoe
