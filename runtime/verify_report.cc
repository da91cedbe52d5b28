#include "runtime/verify_report.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

constexpr size_t kMostFailures = 10;
constexpr const char* kGroups[] = {"logits",
                                   "losses",
                                   "gradients: dense",
                                   "gradients: router",
                                   "gradients: experts",
                                   "gradients: hypernetwork",
                                   "routing",
                                   "tokens",
                                   "other"};

std::string GroupOf(const std::string& name) {
  if (name == "logits") return "logits";
  if (absl::StartsWith(name, "loss.")) return "losses";
  if (absl::StartsWith(name, "grad.hypermoe.")) return "gradients: hypernetwork";
  if (absl::StartsWith(name, "grad.") && absl::StrContains(name, ".mlp.router."))
    return "gradients: router";
  if (absl::StartsWith(name, "grad.") && absl::StrContains(name, ".mlp.experts."))
    return "gradients: experts";
  if (absl::StartsWith(name, "grad.")) return "gradients: dense";
  if (absl::StartsWith(name, "routing.")) return "routing";
  if (absl::StartsWith(name, "tokens.")) return "tokens";
  return "other";
}

// How bad an entry is, against others of any kind.
double Badness(const EntryDifference& entry) {
  if (!entry.problem.empty()) return std::numeric_limits<double>::infinity();
  if (!entry.exact) return entry.relative;
  return static_cast<double>(entry.unequal) /
         static_cast<double>(std::max<int64_t>(1, entry.elements));
}

std::string Place(const EntryDifference& entry) {
  return absl::StrCat(Printable(entry.name), "[", absl::StrJoin(entry.index, ","), "]");
}

// What was found in the entry.
std::string Finding(const EntryDifference& entry) {
  if (!entry.problem.empty()) return absl::StrCat(Printable(entry.name), ": ", entry.problem);
  if (entry.exact) {
    return absl::StrFormat("%s is %.0f, expected %.0f: %d of %d elements differ", Place(entry),
                           entry.actual, entry.expected, entry.unequal, entry.elements);
  }
  return absl::StrFormat("%s is %.12g, expected %.12g: differs by %.2e, relative %.2e",
                         Place(entry), entry.actual, entry.expected, entry.absolute,
                         entry.relative);
}

std::string GroupLine(const VerifyGroup& group) {
  std::string line = absl::StrFormat("%-24s%8d  %-5s", group.name, group.entries,
                                     group.failed == 0 ? "ok" : "FAIL");
  if (group.relative == nullptr) return line + "\n";
  if (group.relative->exact) {
    absl::StrAppend(
        &line, group.relative->unequal == 0
                   ? std::string("equal")
                   : absl::StrFormat("%d of %d elements differ, first %s", group.relative->unequal,
                                     group.relative->elements, Place(*group.relative)));
    return line + "\n";
  }
  absl::StrAppendFormat(&line, "relative %.2e at %s; absolute %.2e", group.relative->relative,
                        Place(*group.relative), group.absolute->absolute);
  if (group.absolute != group.relative) absl::StrAppend(&line, " at ", Place(*group.absolute));
  return line + "\n";
}

std::vector<const EntryDifference*> Failures(const VerifyResult& result) {
  std::vector<const EntryDifference*> failures;
  for (const EntryDifference& entry : result.entries) {
    if (!entry.ok) failures.push_back(&entry);
  }
  std::stable_sort(failures.begin(), failures.end(),
                   [](const auto* a, const auto* b) { return Badness(*a) > Badness(*b); });
  return failures;
}

// The bad thing in JSON: null where there is nothing, or no number.
nlohmann::ordered_json EntryJson(const EntryDifference* entry) {
  if (entry == nullptr) return nullptr;
  nlohmann::ordered_json json = {{"name", entry->name}, {"ok", entry->ok}};
  if (!entry->problem.empty()) {
    json["problem"] = entry->problem;
  } else if (entry->exact) {
    json["unequal"] = entry->unequal;
  } else {
    json["absolute"] = entry->absolute;
    json["relative"] = entry->relative;
  }
  json["index"] = entry->index;
  return json;
}

}  // namespace

std::vector<VerifyGroup> GroupEntries(const VerifyResult& result) {
  std::vector<VerifyGroup> groups;
  for (const char* name : kGroups) {
    VerifyGroup group;
    group.name = name;
    for (const EntryDifference& entry : result.entries) {
      if (GroupOf(entry.name) != name) continue;
      ++group.entries;
      group.failed += entry.ok ? 0 : 1;
      if (!entry.problem.empty()) continue;
      if (group.relative == nullptr || Badness(entry) > Badness(*group.relative))
        group.relative = &entry;
      if (group.absolute == nullptr || entry.absolute > group.absolute->absolute)
        group.absolute = &entry;
    }
    if (group.entries > 0) groups.push_back(group);
  }
  return groups;
}

std::string VerifyTable(const VerifyResult& result) {
  std::string table = absl::StrFormat("%-24s%8s  %-5slargest difference\n", "group", "entries", "");
  for (const VerifyGroup& group : GroupEntries(result)) absl::StrAppend(&table, GroupLine(group));
  const std::vector<const EntryDifference*> failures = Failures(result);
  for (size_t i = 0; i < std::min(failures.size(), kMostFailures); ++i)
    absl::StrAppend(&table, "FAIL ", Finding(*failures[i]), "\n");
  if (failures.size() > kMostFailures)
    absl::StrAppend(&table, "... and ", failures.size() - kMostFailures, " more\n");
  return table;
}

std::string VerifyJson(const VerifyResult& result) {
  const std::vector<const EntryDifference*> failures = Failures(result);
  nlohmann::ordered_json groups = nlohmann::ordered_json::array();
  const EntryDifference* worst = failures.empty() ? nullptr : failures[0];
  for (const VerifyGroup& group : GroupEntries(result)) {
    groups.push_back({{"name", group.name},
                      {"entries", group.entries},
                      {"failed", group.failed},
                      {"worst", EntryJson(group.relative)}});
    if (failures.empty() && group.relative != nullptr &&
        (worst == nullptr || Badness(*group.relative) > Badness(*worst)))
      worst = group.relative;
  }
  const nlohmann::ordered_json line = {
      {"ok", failures.empty()},           {"tolerance", result.tolerance},
      {"entries", result.entries.size()}, {"failed", failures.size()},
      {"worst", EntryJson(worst)},        {"groups", groups}};
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::Status VerifyStatus(const VerifyResult& result) {
  const std::vector<const EntryDifference*> failures = Failures(result);
  if (failures.empty()) return absl::OkStatus();
  return DataError(absl::StrFormat(
      "%d of %d entries of %s are not what the model computes, to a tolerance of %g; the worst: %s",
      failures.size(), result.entries.size(), Printable(result.golden), result.tolerance,
      Finding(*failures[0])));
}

}  // namespace hypermoe
