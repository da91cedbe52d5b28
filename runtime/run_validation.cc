#include "runtime/run_validation.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace hypermoe {
namespace {

// A number that metrics.jsonl could not hold is null there.
double NumberOf(const nlohmann::json& line, const std::string& key) {
  const auto value = line.find(key);
  return value != line.end() && value->is_number() ? value->get<double>()
                                                   : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::string MetricText(const MetricValue& metric) {
  return absl::StrFormat("%s %.2f", metric.name, metric.value);
}

RunValidation::RunValidation(const RunConfig& config, const RunData& data, Trainer& trainer,
                             Communicator& world)
    : config_(config), data_(data), trainer_(trainer), world_(world) {
  if (data.task != nullptr) history_ = ValidationHistory(FirstMetric(*data.task).lower_is_better);
}

void RunValidation::Recall(const std::vector<nlohmann::json>* lines) {
  if (data_.task == nullptr) return;
  const std::string key(FirstMetric(*data_.task).key);
  std::string text;  // "STEP VALUE" of each, in a line
  for (size_t i = 0; lines != nullptr && i < lines->size(); ++i) {
    const nlohmann::json& line = (*lines)[i];
    absl::StrAppendFormat(&text, "%d %.17g\n", line.at("step").get<int64_t>(), NumberOf(line, key));
  }
  text = world_.AllGatherText(text)[0];
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(line, ' ');
    int64_t step = 0;
    double value = 0;
    if (absl::SimpleAtoi(parts.first, &step) && absl::SimpleAtod(parts.second, &value))
      history_.Add(step, value);
  }
}

absl::StatusOr<std::optional<ValidationResult>> RunValidation::Validate(
    int64_t step, int64_t max_rows, const std::function<bool()>& stop) {
  ValidationResult result;
  const std::optional<EvaluatedLosses> losses =
      trainer_.Evaluate(*data_.validation, max_rows, stop);
  if (!losses.has_value()) return std::nullopt;
  result.losses = *losses;
  if (data_.task != nullptr && data_.task->is_text()) {
    result.score = ScoreLosses(*data_.task, *losses);
  } else if (data_.task != nullptr) {
    EvaluationHooks hooks;
    hooks.stop = stop;
    ASSIGN_OR_RETURN(std::optional<TaskOutcome> outcome,
                     EvaluateExamples(*data_.task, data_.examples, max_rows, config_,
                                      *data_.tokenizer, trainer_.model(), hooks, world_));
    if (!outcome.has_value()) return std::nullopt;
    result.score = std::move(outcome->score);
  }
  if (!result.score.values.empty()) history_.Add(step, result.score.values.front().value);
  latest_ = result;
  latest_step_ = step;
  return result;
}

bool RunValidation::given_up() const {
  const int64_t patience = config_.train().patience();
  return patience > 0 && history_.since_best() >= patience;
}

std::string RunValidation::Summary() const {
  if (data_.task == nullptr) return "";
  std::vector<std::string> metrics;
  for (const MetricValue& metric : latest_.score.values) metrics.push_back(MetricText(metric));
  std::string text = absl::StrCat("metrics     ", absl::StrJoin(metrics, ", "));
  if (!data_.task->is_text()) {
    absl::StrAppend(&text, ", over ", latest_.score.examples, " examples, ", latest_.score.invalid,
                    " of them without a valid answer");
  }
  absl::StrAppend(&text, "\n");
  if (history_.best_step() > 0) {
    absl::StrAppend(&text, "best        ",
                    MetricText({std::string(FirstMetric(*data_.task).key), history_.best_value()}),
                    ", after step ", history_.best_step(), "\n");
  }
  return text;
}

}  // namespace hypermoe
