// How long a run is, whether its length is given in steps, in tokens or in epochs.
#pragma once

#include <cstdint>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// Tokens of an optimizer step on token files, over all ranks and micro-batches.
int64_t BatchTokens(const RunConfig& config);

// Labels of a training row (row_format.h): what the decoder of an encoder-decoder reads.
int64_t LabelsOfRow(const RunConfig& config);

// Optimizer steps of the whole run: train.steps, or as few as reach train.tokens. `config` has
// passed ValidateConfig; train.epochs are in steps (LengthInSteps).
int64_t TotalSteps(const RunConfig& config);

// `config` with as few train.steps as have train.epochs of `epoch_rows` rows each, in place of
// those; itself if it has none. ConfigError for too many, or fewer than optimizer.warmup_steps.
absl::StatusOr<RunConfig> LengthInSteps(const RunConfig& config, int64_t epoch_rows);

// That exactly one of train.steps, tokens and epochs is set, and that, but for epochs, whose steps
// are not known yet, the steps are not too many and not fewer than optimizer.warmup_steps.
absl::Status CheckLength(const RunConfig& config);

}  // namespace hypermoe
