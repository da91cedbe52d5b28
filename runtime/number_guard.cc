#include "runtime/number_guard.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/bad_gradients.h"
#include "parallel/replica_check.h"
#include "runtime/train_line.h"

namespace hypermoe {
namespace {

// "; losses are not finite on rank 2", if they are not.
std::string OriginText(bool own_losses_finite, Communicator& world) {
  const std::vector<std::string> finite = world.AllGatherText(own_losses_finite ? "y" : "n");
  std::vector<size_t> ranks;
  for (size_t rank = 0; rank < finite.size(); ++rank) {
    if (finite[rank] == "n") ranks.push_back(rank);
  }
  if (ranks.empty()) return "";
  return absl::StrCat("; losses are not finite on ", ranks.size() == 1 ? "rank " : "ranks ",
                      absl::StrJoin(ranks, ", "));
}

}  // namespace

absl::Status NumberGuard::CheckStep(int64_t taken, const StepResult& result) {
  skipped_in_a_row_ = result.skipped ? skipped_in_a_row_ + 1 : 0;
  if (skipped_in_a_row_ > config_.max_skipped_steps()) return TooManySkipped(taken, result);
  const int64_t every = config_.drift_check_every();
  return every > 0 && taken % every == 0 ? CheckReplicas(taken) : absl::OkStatus();
}

absl::Status NumberGuard::TooManySkipped(int64_t taken, const StepResult& result) {
  const std::string tensor = FirstBadGradient(trainer_.buffers(), trainer_.buckets(), *mesh_.world);
  return InternalError(absl::StrCat(
      "step ", taken, ": ", NumbersText(result), ": skipped, as the ", skipped_in_a_row_ - 1,
      " before it, train.max_skipped_steps allows ", config_.max_skipped_steps(), " in a row; ",
      tensor.empty() ? "all gradients are finite"
                     : absl::StrCat("the first gradient that is not finite is that of ", tensor),
      OriginText(trainer_.own_losses_finite(), *mesh_.world),
      ". Parameters have stayed as before the first of these steps: start another run from the "
      "last checkpoint with --init_from and a lower optimizer.learning_rate, or go on with a "
      "larger "
      "train.max_skipped_steps"));
}

absl::Status NumberGuard::CheckReplicas(int64_t taken) {
  if (config_.drift_check_every() == 0 || compared_ == taken) return absl::OkStatus();
  compared_ = taken;
  const std::string drift = FindDrift(trainer_.buffers(), trainer_.optimizer(), mesh_);
  if (drift.empty()) return absl::OkStatus();
  return InternalError(absl::StrCat(
      "step ", taken, ": ranks that must hold the same values do not: ", drift,
      ". Nothing has been saved since the last comparison that found none; look for faulty memory "
      "on the machine of that rank, and go on from the last checkpoint"));
}

}  // namespace hypermoe
