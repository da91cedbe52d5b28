#include "runtime/evaluator.h"

#include <cmath>
#include <utility>
#include <vector>

#include "runtime/agreement.h"
#include "runtime/dataset.h"
#include "runtime/loaded_model.h"
#include "runtime/trainer.h"

namespace hypermoe {
namespace {

absl::StatusOr<ValidationWindows> OpenWindows(const EvaluateOptions& options,
                                              const CheckpointInfo& info) {
  const RunConfig& config = info.config;
  if (!options.data.empty()) {
    ASSIGN_OR_RETURN(TokenRange tokens, OpenTokens(options.data, config.model().vocab_size()));
    ASSIGN_OR_RETURN(const std::shared_ptr<const RowFormat> format,
                     MakeRowFormat(config.data(), config.model()));
    return ValidationWindows({std::move(tokens)}, format);
  }
  if (info.data_fingerprint.empty()) {
    return UsageError(options.checkpoint +
                      " was not trained here, so it has no validation tokens of its own: give "
                      "--data");
  }
  ASSIGN_OR_RETURN(const Splits splits, OpenSplits(config.data(), config.model()));
  if (splits.fingerprint != info.data_fingerprint) {
    return DataError(
        "the token files of " + options.checkpoint +
        " have changed since it was trained, so its validation tokens are not known: give --data");
  }
  return ValidationWindows(splits.validation, splits.format);
}

}  // namespace

absl::StatusOr<ValidationWindows> OpenEvaluationWindows(const EvaluateOptions& options,
                                                        const CheckpointInfo& info) {
  ASSIGN_OR_RETURN(ValidationWindows windows, OpenWindows(options, info));
  if (windows.num_predictions() == 0) {
    return DataError(options.data + " has fewer than 2 tokens: there is nothing to predict");
  }
  return windows;
}

absl::StatusOr<EvaluateResult> Evaluate(const EvaluateOptions& options,
                                        std::shared_ptr<Communicator> world, int expert_parallel) {
  ASSIGN_OR_RETURN(const LoadedModel loaded,
                   LoadModel(options.checkpoint, options.dtype, world, expert_parallel));
  const absl::StatusOr<ValidationWindows> windows = OpenEvaluationWindows(options, loaded.info);
  RETURN_IF_ERROR(Agree(*world, windows.status()));
  EvaluateResult result;
  result.loss =
      EvaluateWindows(*loaded.model, *windows, 0, EvaluationPassOf(loaded.info.config), *world)
          .value();
  result.perplexity = std::exp(result.loss);
  result.tokens = windows->num_predictions();
  result.step = loaded.info.step;
  return result;
}

}  // namespace hypermoe
