// What a model makes of a task's examples, and how good that is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "model/language_model.h"
#include "parallel/communicator.h"
#include "runtime/example_rows.h"
#include "runtime/score.h"
#include "runtime/status.h"
#include "runtime/task.h"
#include "runtime/window_evaluation.h"

namespace hypermoe {

// How an evaluation is watched and ended; the functions are those of TextDecoding, `stop` that of
// EvaluateWindows too.
struct EvaluationHooks {
  std::function<void(int64_t done)> progress = {};
  std::function<bool()> stop = {};
};

// The examples of a split of a task that is not plain text.
struct TaskExamples {
  std::vector<TaskExample> examples;
  std::shared_ptr<const ExampleTokens> tokens;
  // Whether all have answers to compare with: not where the file of a test set has none.
  bool labelled() const {
    return std::all_of(examples.begin(), examples.end(),
                       [](const TaskExample& example) { return !example.references.empty(); });
  }
};

struct TaskOutcome {
  TaskScore score;                   // without values where examples are not labelled
  std::vector<std::string> outputs;  // on rank 0 alone: texts, in the order of the examples
};

// Decodes all of the examples, or about `max_examples` evenly spread ones if that is above 0, and
// compares. Nothing if stopped. Collective over `world`; the same score on every rank.
absl::StatusOr<std::optional<TaskOutcome>> EvaluateExamples(
    const Task& task, const TaskExamples& examples, int64_t max_examples, const RunConfig& config,
    const Tokenizer& tokenizer, LanguageModel& model, const EvaluationHooks& hooks,
    Communicator& world);

// The metrics of a task of plain text.
TaskScore ScoreLosses(const Task& task, const EvaluatedLosses& losses);

// The metric that says which of two models is better.
const MetricType& FirstMetric(const Task& task);

}  // namespace hypermoe
