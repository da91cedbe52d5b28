// What `hypermoe verify` says about a comparison: a table for people, a line of JSON for programs.
#pragma once

#include <string>
#include <vector>

#include "runtime/status.h"
#include "runtime/verify.h"

namespace hypermoe {

// Entries of one kind together.
struct VerifyGroup {
  std::string name;  // "logits", "losses", "gradients: experts" and so on
  int64_t entries = 0;
  int64_t failed = 0;
  // Of the entries with the largest absolute, and the largest relative difference; of integers both
  // are that with the most unequal elements. Null where nothing could be compared.
  const EntryDifference* absolute = nullptr;
  const EntryDifference* relative = nullptr;
};
// In the order of the table; groups without entries are left out. Points into `result`.
std::vector<VerifyGroup> GroupEntries(const VerifyResult& result);

// A line a group, and below it one for each failed entry, the worst first, at most ten.
std::string VerifyTable(const VerifyResult& result);

// One line, with groups and worst entry; numbers that are not finite are null.
std::string VerifyJson(const VerifyResult& result);

// OK, or a DataError that counts the failed entries and names the worst.
absl::Status VerifyStatus(const VerifyResult& result);

}  // namespace hypermoe
