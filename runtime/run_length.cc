#include "runtime/run_length.h"

#include <algorithm>

#include "model/config_values.h"
#include "runtime/span_corruption.h"

namespace hypermoe {

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

}  // namespace hypermoe
