// The metrics of labels (task_metrics.h).
#pragma once

#include <memory>

#include "runtime/task_metrics.h"

namespace hypermoe {

using Examples = absl::Span<const MeasuredExample>;

std::unique_ptr<Metric> PrepareAccuracy(Examples examples, const MetricOptions& options);
std::unique_ptr<Metric> PrepareF1(Examples examples, const MetricOptions& options);
std::unique_ptr<Metric> PrepareMacroF1(Examples examples, const MetricOptions& options);
std::unique_ptr<Metric> PrepareMatthews(Examples examples, const MetricOptions& options);
std::unique_ptr<Metric> PrepareQuestionMatch(Examples examples, const MetricOptions& options);
std::unique_ptr<Metric> PrepareGroupAccuracy(Examples examples, const MetricOptions& options);

}  // namespace hypermoe
