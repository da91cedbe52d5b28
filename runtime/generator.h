// Text that a model without an encoder goes on with, sampled with a key-value cache.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "parallel/communicator.h"
#include "runtime/status.h"

namespace hypermoe {

struct GenerateOptions {
  std::string checkpoint;  // run folder, checkpoint folder or model folder
  std::string dtype;       // "" as trained
  std::string prompt;
  int64_t max_tokens = 100;
  double temperature = 1.0;  // 0: greedy
  double top_p = 1.0;        // keep the smallest set of ids whose probability reaches this
  uint64_t seed = 1;
};

// The continuation of the prompt (without it), until max_tokens or end of text. Collective over
// `world`: experts stay sharded, the sequence lives on rank 0, and every rank returns the same
// text.
absl::StatusOr<std::string> Generate(const GenerateOptions& options,
                                     std::shared_ptr<Communicator> world, int expert_parallel);

}  // namespace hypermoe
