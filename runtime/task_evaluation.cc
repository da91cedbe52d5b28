#include "runtime/task_evaluation.h"

#include <ATen/ops/from_blob.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/task_settings.h"
#include "runtime/text_decoder.h"

namespace hypermoe {
namespace {

// Every stride-th of the examples.
TaskExamples Spread(const TaskExamples& all, int64_t stride) {
  TaskExamples some;
  auto tokens = std::make_shared<ExampleTokens>();
  for (size_t i = 0; i < all.examples.size(); i += static_cast<size_t>(stride)) {
    some.examples.push_back(all.examples[i]);
    tokens->sources.Add(all.tokens->sources[static_cast<int64_t>(i)]);
  }
  some.tokens = std::move(tokens);
  return some;
}

// Outputs are sent as JSON strings: they may have several lines, and bytes that are not UTF-8,
// which become U+FFFD.
std::string LineOf(const std::string& output) {
  return nlohmann::json(output).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// What rank 0 knows of the values, on every rank.
void ShareScore(const Task& task, TaskScore* score, Communicator& world) {
  std::vector<double> numbers(task.metrics().size() + 1);
  if (world.rank() == 0) {
    for (size_t i = 0; i < score->values.size(); ++i) numbers[i] = score->values[i].value;
    numbers.back() = static_cast<double>(score->invalid);
  }
  world.Broadcast(
      at::from_blob(numbers.data(), {static_cast<int64_t>(numbers.size())}, at::kDouble), 0);
  score->values.clear();
  for (size_t i = 0; i < task.metrics().size(); ++i)
    score->values.push_back({std::string(FindMetric(task.metrics()[i])->key), numbers[i]});
  score->invalid = static_cast<int64_t>(numbers.back());
}

}  // namespace

absl::StatusOr<std::optional<TaskOutcome>> EvaluateExamples(
    const Task& task, const TaskExamples& examples, int64_t max_examples, const RunConfig& config,
    const Tokenizer& tokenizer, LanguageModel& model, const EvaluationHooks& hooks,
    Communicator& world) {
  const auto total = static_cast<int64_t>(examples.examples.size());
  if (max_examples > 0 && max_examples < total) {
    const int64_t stride = (total + max_examples - 1) / max_examples;
    return EvaluateExamples(task, Spread(examples, stride), 0, config, tokenizer, model, hooks,
                            world);
  }
  TextDecoding decoding;
  decoding.batch_size = config.decoding().batch_size();
  decoding.search = SearchOf(task, config.decoding());
  decoding.line = [](int64_t, const DecodedText& output) { return LineOf(output.text); };
  decoding.progress = hooks.progress;
  decoding.stop = hooks.stop;
  ASSIGN_OR_RETURN(const auto lines, DecodeTexts(model, config.model(), tokenizer,
                                                 examples.tokens->sources, decoding, world));
  if (!lines.has_value()) return std::nullopt;
  TaskOutcome outcome;
  for (const std::string& line : *lines)
    outcome.outputs.push_back(nlohmann::json::parse(line).get<std::string>());
  if (examples.labelled()) {
    if (world.rank() == 0) {
      outcome.score =
          ScoreOutputs(task, examples.examples, outcome.outputs, config.data().templates());
    }
    ShareScore(task, &outcome.score, world);
  }
  outcome.score.examples = total;
  return outcome;
}

TaskScore ScoreLosses(const Task& task, const EvaluatedLosses& losses) {
  // One block that has the means of all.
  MeasuredExample block;
  block.loss = losses.loss;
  block.balance_loss = losses.router;
  TaskScore score;
  score.values = PreparedMetrics(task, {&block, 1}, MetricOptions()).Values();
  return score;
}

const MetricType& FirstMetric(const Task& task) { return *FindMetric(task.metrics().front()); }

}  // namespace hypermoe
