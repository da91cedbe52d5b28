// How far the difference between two models may be chance: intervals by resampling the examples
// that both were measured on (Efron's percentile bootstrap, paired).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/score.h"
#include "runtime/task_metrics.h"

namespace hypermoe {

struct BootstrapOptions {
  int64_t resamples = 10000;
  uint64_t seed = 0;
  double confidence = 0.95;
};

struct Interval {
  double low = 0, high = 0;
};

// Which examples are drawn together: those of a group, else each by itself.
std::vector<std::vector<size_t>> DrawnTogether(absl::Span<const MeasuredExample> examples);

// For each metric, of how far the mean of its values over `runs` is above the mean over `others`;
// each is one training's metrics (a seed) of the same examples, in the same order. A resample draws
// as many of `units` as there are, with repetition, and is the same for all runs. Draw d of
// resample r is a hash of the seed and r * units + d (keyed_permutation.h), so that the same seed
// always gives the same interval. Ends between two resamples are interpolated. The seeds themselves
// are not resampled.
std::vector<Interval> DifferenceIntervals(absl::Span<const PreparedMetrics> runs,
                                          absl::Span<const PreparedMetrics> others,
                                          const std::vector<std::vector<size_t>>& units,
                                          const BootstrapOptions& options);

}  // namespace hypermoe
