#include "runtime/score.h"

#include <algorithm>
#include <stdexcept>

namespace hypermoe {
namespace {

std::vector<const MetricType*> MetricTypesOf(const Task& task) {
  std::vector<const MetricType*> types;
  for (const std::string_view name : task.metrics()) {
    types.push_back(FindMetric(name));
    if (types.back() == nullptr)
      throw std::logic_error("there is no metric " + std::string(name) + " (task_metrics.h)");
  }
  return types;
}

}  // namespace

MetricOptions MetricOptionsOf(DataConfig::Templates templates) {
  MetricOptions options;
  options.stemmer = templates == DataConfig::off;
  return options;
}

AnswerKind AnswerKindOf(const Task& task) { return MetricTypesOf(task).front()->kind; }

std::string NoAnswer(const Task& task) {
  return AnswerKindOf(task) == AnswerKind::kLabel ? "-1" : "";
}

std::vector<MeasuredExample> Measure(const Task& task, absl::Span<const TaskExample> examples,
                                     absl::Span<const std::string> outputs,
                                     DataConfig::Templates templates) {
  std::vector<MeasuredExample> measured(examples.size());
  for (size_t i = 0; i < examples.size(); ++i) {
    measured[i].answer = task.AnswerOf(outputs[i], examples[i], templates);
    measured[i].references = examples[i].references;
    measured[i].group = examples[i].group;
  }
  return measured;
}

PreparedMetrics::PreparedMetrics(const Task& task, absl::Span<const MeasuredExample> examples,
                                 const MetricOptions& options)
    : examples_(static_cast<int64_t>(examples.size())), types_(MetricTypesOf(task)) {
  for (const MetricType* type : types_) metrics_.push_back(type->prepare(examples, options));
  const AnswerKind kind = types_.front()->kind;
  if (kind != AnswerKind::kLabel && kind != AnswerKind::kScore) return;
  const std::string none = NoAnswer(task);
  invalid_ = std::count_if(examples.begin(), examples.end(), [&](const MeasuredExample& example) {
    return !example.missing && example.answer == none;
  });
}

std::vector<MetricValue> PreparedMetrics::Values() const {
  const std::vector<int32_t> once(static_cast<size_t>(examples_), 1);
  std::vector<MetricValue> values;
  for (size_t i = 0; i < types_.size(); ++i)
    values.push_back({std::string(types_[i]->key), Value(i, once)});
  return values;
}

TaskScore ScoreOutputs(const Task& task, absl::Span<const TaskExample> examples,
                       absl::Span<const std::string> outputs, DataConfig::Templates templates) {
  const PreparedMetrics metrics(task, Measure(task, examples, outputs, templates),
                                MetricOptionsOf(templates));
  return {metrics.Values(), metrics.examples(), metrics.invalid()};
}

}  // namespace hypermoe
