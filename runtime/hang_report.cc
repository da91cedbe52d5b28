#include "runtime/hang_report.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "parallel/gradient_reducer.h"

namespace hypermoe {
namespace {

// "step 41, phase forward, inside collective 1234 (all_to_all of group 'expert')"
std::string Doing(const Heartbeat& h) {
  const std::string place = h.step > 0 ? absl::StrFormat("step %d, phase %s", h.step, h.phase)
                                       : absl::StrFormat("no step yet, phase %s", h.phase);
  if (h.collective == 0) return place + ", no collective yet";
  return absl::StrFormat("%s, %s collective %d (%s of group '%s')", place,
                         h.inside ? "inside" : "after", h.collective, h.kind, h.group);
}

std::string Process(const Heartbeat& h) { return absl::StrFormat("%s, pid %d", h.host, h.pid); }

std::string Line(int rank, const RankState& state, RankCondition condition) {
  if (condition == RankCondition::kUnknown) {
    return absl::StrFormat("rank %d: no heartbeat: it has not started or has left", rank);
  }
  const Heartbeat& h = *state.heartbeat;
  std::string what;
  switch (condition) {
    case RankCondition::kSilent:
      what = absl::StrFormat("silent for %.1f s", state.silent);
      break;
    case RankCondition::kStuck:
      what = absl::StrFormat("stuck for %.1f s", state.idle());
      break;
    case RankCondition::kWaiting:
      what = absl::StrFormat("waits for %.1f s", state.idle());
      break;
    default:
      what = "works";
  }
  return absl::StrFormat("rank %d: %s; %s (%s)", rank, what, Doing(h), Process(h));
}

std::string Names(const std::vector<int>& ranks) {
  constexpr size_t kMost = 8;
  const std::vector<int> shown(ranks.begin(), ranks.begin() + std::min(ranks.size(), kMost));
  std::string text =
      absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(shown, ", "));
  if (shown.size() < ranks.size()) {
    absl::StrAppend(&text, " and ", ranks.size() - shown.size(), " more");
  }
  return text;
}

// By so many collectives a rank may be ahead of others without their being late (CollectiveMark).
constexpr auto kMaxAhead = static_cast<int64_t>(kMaxPendingReductions);

// Where every rank that can be seen waits inside a collective.
std::string AllWait(const std::vector<RankState>& ranks, double hang_seconds) {
  int64_t furthest = 0;
  for (const RankState& rank : ranks) {
    if (rank.heartbeat.has_value()) furthest = std::max(furthest, rank.heartbeat->collectives);
  }
  std::vector<int> behind;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i].heartbeat.has_value() && ranks[i].heartbeat->collectives + kMaxAhead < furthest)
      behind.push_back(static_cast<int>(i));
  }
  const std::string waits = absl::StrFormat(
      "the job hangs: all ranks wait in collectives, for %g s and more", hang_seconds);
  if (behind.empty()) {
    return absl::StrCat(waits, ", all of them near number ", furthest,
                        ": the network, or a device, holds them up");
  }
  const Heartbeat& first = *ranks[behind.front()].heartbeat;
  return absl::StrCat(waits, "; behind the others, which have begun number ", furthest, ": ",
                      Names(behind), "; ", Doing(first));
}

}  // namespace

RankCondition ConditionOf(const RankState& rank, double hang_seconds) {
  const double lately = hang_seconds / 3;
  if (!rank.heartbeat.has_value()) return RankCondition::kUnknown;
  if (rank.silent >= lately) return RankCondition::kSilent;
  if (rank.idle() < lately) return RankCondition::kWorking;
  return rank.heartbeat->inside ? RankCondition::kWaiting : RankCondition::kStuck;
}

bool JobHangs(const std::vector<RankState>& ranks, int self, double hang_seconds) {
  const RankState& own = ranks[self];
  const bool own_still = own.idle() >= hang_seconds;
  if (own_still && !own.heartbeat->inside) return true;
  bool others_busy = false;
  for (const RankState& rank : ranks) {
    if (rank.heartbeat.has_value() && rank.silent >= hang_seconds) return true;
    const RankCondition condition = ConditionOf(rank, hang_seconds);
    others_busy = others_busy || condition == RankCondition::kWorking ||
                  (condition == RankCondition::kStuck && rank.idle() < hang_seconds);
  }
  return own_still && !others_busy;
}

HangReport DescribeHang(const std::vector<RankState>& ranks, double hang_seconds) {
  HangReport report;
  std::vector<int> silent, stuck;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const RankCondition condition = ConditionOf(ranks[i], hang_seconds);
    if (condition == RankCondition::kSilent) silent.push_back(static_cast<int>(i));
    if (condition == RankCondition::kStuck) stuck.push_back(static_cast<int>(i));
    report.ranks.push_back(Line(static_cast<int>(i), ranks[i], condition));
  }
  const std::vector<int>& named = silent.empty() ? stuck : silent;
  if (named.empty()) {
    report.headline = AllWait(ranks, hang_seconds);
    return report;
  }
  const RankState& first = ranks[named.front()];
  const std::string why =
      silent.empty() ? absl::StrFormat("alive, but without progress for %.1f s; ", first.idle())
                     : absl::StrFormat(
                           "no sign of life for %.1f s and more, so stopped, or its machine is "
                           "gone; last seen in ",
                           first.silent);
  report.headline = absl::StrCat(Names(named), named.size() == 1 ? " hangs: " : " hang: ", why,
                                 Doing(*first.heartbeat), " (", Process(*first.heartbeat), ")");
  return report;
}

}  // namespace hypermoe
