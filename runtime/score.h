// The metrics of a task for what a model has written, in memory; score_files.h has those of files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "configs/run.pb.h"
#include "runtime/task.h"
#include "runtime/task_metrics.h"

namespace hypermoe {

struct MetricValue {
  std::string name;  // MetricType::key
  double value = 0;
};

struct TaskScore {
  std::vector<MetricValue> values;  // in the order of Task::metrics()
  int64_t examples = 0;
  int64_t invalid = 0;  // outputs that are no label or no score of the task
};

// What the authors of a family of templates measure with: `off` stems the words of ROUGE, `t5` does
// not.
MetricOptions MetricOptionsOf(DataConfig::Templates templates);

// outputs[i]: the text that the model wrote for examples[i]. The task is not one of plain text,
// whose metrics are Perplexity(loss) and Perplexity(loss + balance loss).
TaskScore ScoreOutputs(const Task& task, absl::Span<const TaskExample> examples,
                       absl::Span<const std::string> outputs, DataConfig::Templates templates);

// The examples with what the outputs say.
std::vector<MeasuredExample> Measure(const Task& task, absl::Span<const TaskExample> examples,
                                     absl::Span<const std::string> outputs,
                                     DataConfig::Templates templates);

// All metrics of a task for the same examples.
class PreparedMetrics {
 public:
  PreparedMetrics(const Task& task, absl::Span<const MeasuredExample> examples,
                  const MetricOptions& options);
  // As Metric::Value, in the order of Task::metrics().
  std::vector<MetricValue> Values(absl::Span<const int32_t> times) const;
  std::vector<MetricValue> Values() const;  // of all examples
  const std::vector<const MetricType*>& types() const { return types_; }
  int64_t invalid() const { return invalid_; }

 private:
  size_t examples_ = 0;
  int64_t invalid_ = 0;
  std::vector<const MetricType*> types_;
  std::vector<std::unique_ptr<Metric>> metrics_;
};

}  // namespace hypermoe
