#include "runtime/evaluator.h"

#include <cmath>
#include <utility>
#include <vector>

#include "runtime/agreement.h"
#include "runtime/dataset.h"
#include "runtime/loaded_model.h"
#include "runtime/run_data.h"
#include "runtime/window_evaluation.h"

namespace hypermoe {
namespace {

using Windows = std::shared_ptr<const ValidationData>;

absl::StatusOr<Windows> OpenWindows(const EvaluateOptions& options, const CheckpointInfo& info) {
  const RunConfig& config = info.config;
  if (!options.data.empty()) {
    ASSIGN_OR_RETURN(TokenRange tokens, OpenTokens(options.data, config.model().vocab_size()));
    ASSIGN_OR_RETURN(const std::shared_ptr<const RowFormat> format,
                     MakeRowFormat(config.data(), config.model()));
    return std::make_shared<ValidationWindows>(std::vector<TokenRange>{std::move(tokens)}, format);
  }
  if (info.data_fingerprint.empty()) {
    return UsageError(options.checkpoint +
                      " was not trained here, so it has no validation tokens of its own: give "
                      "--data");
  }
  ASSIGN_OR_RETURN(const RunData data, OpenRunData(config));
  if (data.fingerprint != info.data_fingerprint) {
    return DataError(
        "the token files of " + options.checkpoint +
        " have changed since it was trained, so its validation tokens are not known: give --data");
  }
  return data.validation;
}

}  // namespace

absl::StatusOr<Windows> OpenEvaluationWindows(const EvaluateOptions& options,
                                              const CheckpointInfo& info) {
  ASSIGN_OR_RETURN(const Windows windows, OpenWindows(options, info));
  if (windows->num_predictions() == 0) {
    return DataError(options.data + " has fewer than 2 tokens: there is nothing to predict");
  }
  return windows;
}

absl::StatusOr<EvaluateResult> Evaluate(const EvaluateOptions& options,
                                        std::shared_ptr<Communicator> world, int expert_parallel) {
  ASSIGN_OR_RETURN(const LoadedModel loaded,
                   LoadModel(options.checkpoint, options.dtype, world, expert_parallel));
  const absl::StatusOr<Windows> windows = OpenEvaluationWindows(options, loaded.info);
  RETURN_IF_ERROR(Agree(*world, windows.status()));
  EvaluateResult result;
  result.loss =
      EvaluateWindows(*loaded.model, **windows, 0, loaded.info.config, *world).value().loss;
  result.perplexity = std::exp(result.loss);
  result.tokens = (*windows)->num_predictions();
  result.step = loaded.info.step;
  return result;
}

}  // namespace hypermoe
