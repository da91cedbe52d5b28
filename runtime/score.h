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

// outputs[i]: the text that the model wrote for examples[i], which was read with its references and
// the same templates. The task is not one of plain text, whose metrics are Perplexity(loss) and
// Perplexity(loss + balance loss).
TaskScore ScoreOutputs(const Task& task, absl::Span<const TaskExample> examples,
                       absl::Span<const std::string> outputs, DataConfig::Templates templates);

// What the answers of the task are.
AnswerKind AnswerKindOf(const Task& task);
// What an output that says nothing is read as: "-1" for a label, else "".
std::string NoAnswer(const Task& task);

// The examples with what the outputs say.
std::vector<MeasuredExample> Measure(const Task& task, absl::Span<const TaskExample> examples,
                                     absl::Span<const std::string> outputs,
                                     DataConfig::Templates templates);

// All metrics of a task for the same examples.
class PreparedMetrics {
 public:
  PreparedMetrics(const Task& task, absl::Span<const MeasuredExample> examples,
                  const MetricOptions& options);

  const std::vector<const MetricType*>& types() const { return types_; }
  // Of types()[i], as Metric::Value.
  double Value(size_t i, absl::Span<const int32_t> times) const {
    return metrics_[i]->Value(times);
  }
  // Of all examples.
  std::vector<MetricValue> Values() const;
  int64_t examples() const { return examples_; }
  int64_t invalid() const { return invalid_; }  // missing ones left out

 private:
  int64_t examples_;
  int64_t invalid_ = 0;
  std::vector<const MetricType*> types_;
  std::vector<std::unique_ptr<Metric>> metrics_;
};

}  // namespace hypermoe
