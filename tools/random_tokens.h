// Training data that needs no file: keyed random tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/dataset.h"

namespace hypermoe {

// One file of `count` tokens, evenly drawn from the ids below `vocab_size`; the same in every run.
std::vector<WeightedTokens> RandomTokens(int64_t count, int64_t vocab_size);

// Rows of such a file for a trainer of `config`, which ValidateConfig accepts.
std::shared_ptr<const TrainingData> RandomRows(const RunConfig& config, int64_t count);

}  // namespace hypermoe
