// The metrics of texts (task_metrics.h).
#pragma once

#include <memory>

#include "runtime/task_metrics.h"

namespace hypermoe {

std::unique_ptr<Metric> PrepareTextAccuracy(absl::Span<const MeasuredExample> examples,
                                            const MetricOptions& options);
std::unique_ptr<Metric> PrepareExactMatch(absl::Span<const MeasuredExample> examples,
                                          const MetricOptions& options);
std::unique_ptr<Metric> PrepareTokenF1(absl::Span<const MeasuredExample> examples,
                                       const MetricOptions& options);
std::unique_ptr<Metric> PrepareRouge1(absl::Span<const MeasuredExample> examples,
                                      const MetricOptions& options);
std::unique_ptr<Metric> PrepareRouge2(absl::Span<const MeasuredExample> examples,
                                      const MetricOptions& options);
std::unique_ptr<Metric> PrepareRougeL(absl::Span<const MeasuredExample> examples,
                                      const MetricOptions& options);
std::unique_ptr<Metric> PrepareRougeLsum(absl::Span<const MeasuredExample> examples,
                                         const MetricOptions& options);

}  // namespace hypermoe
