#include "runtime/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hypermoe {

int64_t WarmupSteps(const OptimizerConfig& config, int64_t steps) {
  if (config.warmup_fraction() == 0) return config.warmup_steps();
  // 0.1 of 30 steps are 3, although the product is a little more.
  constexpr double kRounding = 1e-9;
  return static_cast<int64_t>(
      std::ceil(config.warmup_fraction() * static_cast<double>(steps) - kRounding));
}

double LearningRate(const OptimizerConfig& config, int64_t step, int64_t steps) {
  const double peak = config.learning_rate(), low = config.min_learning_rate();
  const int64_t warmup = WarmupSteps(config, steps);
  if (step < warmup) {
    if (config.warmup() == OptimizerConfig::flat) return peak;
    return peak * static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  }
  const int64_t span = std::max<int64_t>(1, steps - 1 - warmup);
  const double progress =
      std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(span));
  switch (config.schedule()) {
    case OptimizerConfig::cosine:
      return low + 0.5 * (peak - low) * (1.0 + std::cos(std::numbers::pi * progress));
    case OptimizerConfig::linear:
      return low + (peak - low) * (1.0 - progress);
    case OptimizerConfig::inverse_sqrt:
      return std::max(
          low, peak * std::sqrt(static_cast<double>(warmup + 1) / static_cast<double>(step + 1)));
    case OptimizerConfig::constant:
      break;
  }
  return peak;
}

}  // namespace hypermoe
