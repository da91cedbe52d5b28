#include "tests/support/nccl_records.h"

#include <algorithm>
#include <sstream>
#include <utility>

namespace hypermoe {
namespace {

bool IsMessage(const NcclCall& call) { return call.name == "ncclSend" || call.name == "ncclRecv"; }

// A call that all make, and the messages since the one before.
struct Step {
  NcclCall call;
  std::vector<NcclCall> messages;
};

std::vector<Step> StepsOf(const std::vector<NcclCall>& calls) {
  std::vector<Step> steps(1);
  for (const NcclCall& call : calls) {
    if (IsMessage(call)) {
      steps.back().messages.push_back(call);
    } else {
      steps.back().call = call;
      steps.emplace_back();
    }
  }
  steps.back().call.name = "the end";
  return steps;
}

// The messages of that name with that peer, as the other end names them.
std::vector<NcclCall> Messages(const Step& step, const std::string& name, int peer, int self) {
  std::vector<NcclCall> found;
  for (NcclCall call : step.messages) {
    if (call.name != name || call.peer != peer) continue;
    call.name = name == "ncclSend" ? "ncclRecv" : "ncclSend";
    call.peer = self;
    found.push_back(std::move(call));
  }
  return found;
}

std::string WrongMessage(const std::vector<Step>& steps, int rank, int size) {
  for (const Step& step : steps) {
    for (const NcclCall& call : step.messages) {
      if (call.peer == rank || call.peer < 0 || call.peer >= size || call.count <= 0) {
        return "rank " + std::to_string(rank) + " makes the useless " + TextOf(call);
      }
    }
  }
  return "";
}

// Sends of `from` against receives of `to`.
std::string UnmatchedMessage(const Step& from_step, int from, const Step& to_step, int to) {
  const std::vector<NcclCall> sent = Messages(from_step, "ncclSend", to, from);
  std::vector<NcclCall> received;
  for (const NcclCall& call : to_step.messages) {
    if (call.name == "ncclRecv" && call.peer == from) received.push_back(call);
  }
  if (sent == received) return "";
  const std::string ranks = "from rank " + std::to_string(from) + " to " + std::to_string(to);
  for (size_t i = 0; i < std::min(sent.size(), received.size()); ++i) {
    if (sent[i] != received[i]) {
      return ranks + ": expected by the sender " + TextOf(sent[i]) + ", made " +
             TextOf(received[i]);
    }
  }
  return ranks + ": " + std::to_string(sent.size()) + " sends, but " +
         std::to_string(received.size()) + " receives";
}

}  // namespace

std::string TextOf(const NcclCall& call) {
  return call.name + " of " + std::to_string(call.count) + " " + call.type + " (" + call.op +
         "), peer " + std::to_string(call.peer) + ", in " + call.group;
}

std::string Serialized(const std::vector<NcclCall>& calls) {
  std::ostringstream text;
  for (const NcclCall& call : calls) {
    text << call.name << ' ' << call.group << ' ' << call.count << ' ' << call.type << ' '
         << call.op << ' ' << call.peer << '\n';
  }
  return text.str();
}

std::vector<NcclCall> Parsed(const std::string& text) {
  std::vector<NcclCall> calls;
  std::istringstream in(text);
  NcclCall call;
  while (in >> call.name >> call.group >> call.count >> call.type >> call.op >> call.peer) {
    calls.push_back(call);
  }
  return calls;
}

std::string Difference(const std::vector<std::vector<NcclCall>>& by_rank) {
  const int size = static_cast<int>(by_rank.size());
  std::vector<std::vector<Step>> steps;
  for (int rank = 0; rank < size; ++rank) {
    steps.push_back(StepsOf(by_rank[rank]));
    const std::string wrong = WrongMessage(steps.back(), rank, size);
    if (!wrong.empty()) return wrong;
  }
  for (size_t i = 0; i < steps[0].size(); ++i) {
    for (int rank = 1; rank < size; ++rank) {
      if (i < steps[rank].size() && steps[rank][i].call == steps[0][i].call) continue;
      return "step " + std::to_string(i) + ": rank 0 makes " + TextOf(steps[0][i].call) +
             ", but rank " + std::to_string(rank) + " " +
             (i < steps[rank].size() ? TextOf(steps[rank][i].call) : "nothing");
    }
    for (int from = 0; from < size; ++from) {
      for (int to = 0; to < size; ++to) {
        const std::string unmatched = UnmatchedMessage(steps[from][i], from, steps[to][i], to);
        if (!unmatched.empty()) return "step " + std::to_string(i) + ": " + unmatched;
      }
    }
  }
  return "";
}

}  // namespace hypermoe
