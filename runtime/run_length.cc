#include "runtime/run_length.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/config_values.h"
#include "runtime/span_corruption.h"

namespace hypermoe {
namespace {

constexpr int64_t kMaxSteps = 1000000000;

// `length`: what the steps follow from, such as "train.epochs (3)".
absl::Status CheckSteps(int64_t steps, const OptimizerConfig& optimizer,
                        const std::string& length) {
  if (steps > kMaxSteps) {
    return ConfigError(absl::StrCat(length, " are ", steps, " steps, but a run has at most ",
                                    kMaxSteps, ": lower it, or raise train.batch_size"));
  }
  if (optimizer.warmup_fraction() == 0 && optimizer.warmup_steps() > steps) {
    return ConfigError(absl::StrCat("optimizer.warmup_steps (", optimizer.warmup_steps(),
                                    ") must be at most the steps of the run (", steps, ", by ",
                                    length, "): change either"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t BatchTokens(const RunConfig& config) {
  return int64_t{config.train().batch_size()} * config.model().sequence_length();
}

int64_t LabelsOfRow(const RunConfig& config) {
  const int64_t inputs = config.model().sequence_length();
  if (!HasEncoder(config.model())) return inputs;
  // Shorter rows than three tokens cannot be made (MakeRowFormat).
  return LongestText(std::max<int64_t>(3, inputs),
                     {config.data().noise_density(), config.data().mean_span_length()})
      .targets();
}

int64_t TotalSteps(const RunConfig& config) {
  if (config.train().tokens() == 0) return config.train().steps();
  return (config.train().tokens() - 1) / BatchTokens(config) + 1;
}

absl::StatusOr<RunConfig> LengthInSteps(const RunConfig& config, int64_t epoch_rows) {
  const int64_t epochs = config.train().epochs();
  if (epochs == 0) return config;
  RunConfig in_steps = config;
  in_steps.mutable_train()->set_epochs(0);
  in_steps.mutable_train()->set_steps((epochs * epoch_rows - 1) / config.train().batch_size() + 1);
  RETURN_IF_ERROR(CheckSteps(in_steps.train().steps(), config.optimizer(),
                             absl::StrCat("train.epochs (", epochs, ")")));
  return in_steps;
}

absl::Status CheckLength(const RunConfig& config) {
  const TrainConfig& train = config.train();
  std::vector<std::string> given;
  if (train.steps() > 0) given.push_back(absl::StrCat("train.steps (", train.steps(), ")"));
  if (train.tokens() > 0) given.push_back(absl::StrCat("train.tokens (", train.tokens(), ")"));
  if (train.epochs() > 0) given.push_back(absl::StrCat("train.epochs (", train.epochs(), ")"));
  if (given.size() != 1) {
    return ConfigError(absl::StrCat(
        given.empty() ? "train.steps, train.tokens and train.epochs are all 0"
                      : absl::StrJoin(given, " and ") + " are both set",
        ": set exactly one of them above 0, and the others to 0"));
  }
  if (train.epochs() > 0) return absl::OkStatus();
  return CheckSteps(TotalSteps(config), config.optimizer(), given.front());
}

}  // namespace hypermoe
