#include "runtime/validation_history.h"

#include <cmath>

namespace hypermoe {

void ValidationHistory::Add(int64_t step, double value) {
  if (step <= last_step_) return;
  last_step_ = step;
  const bool better =
      !std::isnan(value) &&
      (best_step_ == 0 || (lower_is_better_ ? value < best_value_ : value > best_value_));
  if (!better) {
    ++since_best_;
    return;
  }
  best_step_ = step;
  best_value_ = value;
  since_best_ = 0;
}

}  // namespace hypermoe
