// Sums gradients over the ranks that hold the same parameters, while backward still runs.
//
// Each rank's loss is its share of a sum over the global batch (divisors are global counts), so
// every reduction is a plain SUM over the parameter's own group and nothing is rescaled afterwards.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "parallel/gradient_bucket.h"

namespace hypermoe {

// Reductions that are under way at once on a rank, where gradients are in the host's memory. It
// bounds their scratch memory: each takes what the other ranks send of this rank's part of a
// bucket.
constexpr size_t kMaxPendingReductions = 4;

class GradientReducer {
 public:
  // Watches the parameters of `buffers`: they, `buckets` and the buckets' groups must outlive this.
  // `scatter` (ZeRO-1): each rank gets the sums of the parts it owns, and the other elements are
  // lost.
  GradientReducer(const std::vector<FlatBuffer>& buffers,
                  const std::vector<GradientBucket>& buckets, bool scatter);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // Call before the last backward of a step: from now on a bucket's reduction is started as soon as
  // backward has added to all its gradients, in the order of the buckets and without waiting for
  // other ranks, whose backward may stand elsewhere. A parameter that recomputed blocks share is
  // added to by each of them and counts the first time; the order of the buckets must hold its own
  // back until the last. Local.
  void Arm();

  // Call when all gradients are complete: starts what has not been started and waits for all.
  // Works without Arm too. Collective over the groups of the buckets.
  void Finish();

  // Buckets that were started before Finish, in the last step: what backward may have hidden.
  size_t started_early() const { return started_early_; }

 private:
  class Hook;

  void ParameterReady(size_t buffer, size_t parameter);
  void StartReadyBuckets();
  bool BoundsMemory(size_t bucket) const;
  void StartNext();

  const std::vector<FlatBuffer>& buffers_;
  const std::vector<GradientBucket>& buckets_;
  bool scatter_;
  // [buffer][parameter]: the buckets that hold some of its elements.
  std::vector<std::vector<std::vector<size_t>>> buckets_of_parameter_;
  std::vector<int> parameters_of_bucket_;
  std::vector<int> missing_;  // by bucket: parameters that backward has not added to yet
  std::vector<std::vector<bool>> added_;  // [buffer][parameter]: backward has added to it
  bool armed_ = false;
  size_t next_ = 0;  // bucket to start
  size_t started_early_ = 0;
  std::deque<std::unique_ptr<PendingCollective>> pending_;
};

}  // namespace hypermoe
