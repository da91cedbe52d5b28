#include "runtime/agreement.h"

#include <ATen/ops/from_blob.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace hypermoe {
namespace {

// "CODE MESSAGE"; "" is OK.
std::string Encode(const absl::Status& status) {
  if (status.ok()) return "";
  return absl::StrCat(status.raw_code(), " ", status.message());
}

}  // namespace

absl::Status Agree(Communicator& world, const absl::Status& local) {
  const std::vector<std::string> outcomes = world.AllGatherText(Encode(local));
  bool alike = true;
  for (const std::string& outcome : outcomes) alike = alike && outcome == outcomes[0];
  for (size_t rank = 0; rank < outcomes.size(); ++rank) {
    const std::string& outcome = outcomes[rank];
    if (outcome.empty()) continue;
    char* end = nullptr;
    const auto code = static_cast<absl::StatusCode>(std::strtol(outcome.c_str(), &end, 10));
    const std::string message = end + 1;
    return absl::Status(code, alike ? message : absl::StrCat("rank ", rank, ": ", message));
  }
  return absl::OkStatus();
}

bool AnyRank(Communicator& world, bool mine) {
  int64_t any = mine ? 1 : 0;
  world.AllReduceMax(at::from_blob(&any, {1}, at::kLong));
  return any != 0;
}

}  // namespace hypermoe
