#include "runtime/run_length.h"

namespace hypermoe {

int64_t BatchTokens(const RunConfig& config) {
  return int64_t{config.train().batch_size()} * config.model().sequence_length();
}

int64_t TotalSteps(const RunConfig& config) {
  if (config.train().tokens() == 0) return config.train().steps();
  return (config.train().tokens() - 1) / BatchTokens(config) + 1;
}

}  // namespace hypermoe
