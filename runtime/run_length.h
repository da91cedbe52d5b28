// How long a run is, whether its length is given in steps or in tokens.
#pragma once

#include <cstdint>

#include "configs/run.pb.h"

namespace hypermoe {

// Tokens of an optimizer step, over all ranks and micro-batches.
int64_t BatchTokens(const RunConfig& config);

// Labels of a training row (row_format.h): what the decoder of an encoder-decoder reads.
int64_t LabelsOfRow(const RunConfig& config);

// Optimizer steps of the whole run: train.steps, or as few as reach train.tokens. `config` has
// passed ValidateConfig.
int64_t TotalSteps(const RunConfig& config);

}  // namespace hypermoe
