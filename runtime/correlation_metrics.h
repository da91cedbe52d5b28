// The metrics of scores (task_metrics.h).
#pragma once

#include <memory>

#include "runtime/task_metrics.h"

namespace hypermoe {

std::unique_ptr<Metric> PreparePearson(absl::Span<const MeasuredExample> examples,
                                       const MetricOptions& options);
std::unique_ptr<Metric> PrepareSpearman(absl::Span<const MeasuredExample> examples,
                                        const MetricOptions& options);
std::unique_ptr<Metric> PrepareAucRoc(absl::Span<const MeasuredExample> examples,
                                      const MetricOptions& options);
std::unique_ptr<Metric> PrepareAucPr(absl::Span<const MeasuredExample> examples,
                                     const MetricOptions& options);

}  // namespace hypermoe
