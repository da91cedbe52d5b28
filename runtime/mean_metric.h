// The metric of most texts: a mean of values that each example has by itself.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/task_metrics.h"

namespace hypermoe {

// Of values that count times[i] times each; 0 of none.
inline double MeanOf(absl::Span<const double> values, absl::Span<const int32_t> times) {
  double sum = 0;
  int64_t count = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    sum += values[i] * times[i];
    count += times[i];
  }
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

class MeanMetric : public Metric {
 public:
  explicit MeanMetric(std::vector<double> fractions) : fractions_(std::move(fractions)) {}
  double Value(absl::Span<const int32_t> times) const override {
    return 100 * MeanOf(fractions_, times);
  }

 private:
  std::vector<double> fractions_;
};

}  // namespace hypermoe
