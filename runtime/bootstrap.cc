#include "runtime/bootstrap.h"

#include <algorithm>
#include <map>
#include <string>

#include "runtime/keyed_permutation.h"

namespace hypermoe {
namespace {

double MeanValue(absl::Span<const PreparedMetrics> runs, size_t metric,
                 absl::Span<const int32_t> times) {
  double sum = 0;
  for (const PreparedMetrics& run : runs) sum += run.Value(metric, times);
  return sum / static_cast<double>(runs.size());
}

// How often each of `examples` examples is in resample number `resample`.
std::vector<int32_t> Draw(const std::vector<std::vector<size_t>>& units, int64_t examples,
                          uint64_t seed, int64_t resample) {
  std::vector<int32_t> times(static_cast<size_t>(examples), 0);
  const uint64_t count = units.size();
  for (uint64_t draw = 0; draw < count; ++draw) {
    const uint64_t hash = KeyedHash(seed, static_cast<uint64_t>(resample) * count + draw);
    for (const size_t example : units[(hash >> 32) * count >> 32]) ++times[example];
  }
  return times;
}

// The value below which `share` of the sorted values are.
double Quantile(absl::Span<const double> sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

std::vector<std::vector<size_t>> DrawnTogether(absl::Span<const MeasuredExample> examples) {
  std::vector<std::vector<size_t>> units;
  std::map<std::string, size_t> known;
  for (size_t i = 0; i < examples.size(); ++i) {
    const std::string& group = examples[i].group;
    size_t unit = units.size();
    if (!group.empty()) unit = known.emplace(group, unit).first->second;
    if (unit == units.size()) units.emplace_back();
    units[unit].push_back(i);
  }
  return units;
}

std::vector<Interval> DifferenceIntervals(absl::Span<const PreparedMetrics> runs,
                                          absl::Span<const PreparedMetrics> others,
                                          const std::vector<std::vector<size_t>>& units,
                                          const BootstrapOptions& options) {
  const size_t metrics = runs[0].types().size();
  std::vector<std::vector<double>> differences(metrics);
  for (int64_t resample = 0; resample < options.resamples; ++resample) {
    const std::vector<int32_t> times = Draw(units, runs[0].examples(), options.seed, resample);
    for (size_t metric = 0; metric < metrics; ++metric) {
      differences[metric].push_back(MeanValue(runs, metric, times) -
                                    MeanValue(others, metric, times));
    }
  }
  const double tail = (1 - options.confidence) / 2;
  std::vector<Interval> intervals;
  for (std::vector<double>& values : differences) {
    std::sort(values.begin(), values.end());
    intervals.push_back({Quantile(values, tail), Quantile(values, 1 - tail)});
  }
  return intervals;
}

}  // namespace hypermoe
