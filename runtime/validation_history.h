// The validations of a run by the one number that says which model is better.
#pragma once

#include <cstdint>

namespace hypermoe {

class ValidationHistory {
 public:
  ValidationHistory() = default;
  explicit ValidationHistory(bool lower_is_better) : lower_is_better_(lower_is_better) {}

  // The next one, of a later step than all before; one that is there already changes nothing. Of
  // equal values the first is the best; NaN is none.
  void Add(int64_t step, double value);

  int64_t best_step() const { return best_step_; }  // 0: none yet
  double best_value() const { return best_value_; }
  int64_t since_best() const { return since_best_; }  // validations after the best one

 private:
  bool lower_is_better_ = false;
  int64_t last_step_ = 0;
  int64_t best_step_ = 0;
  double best_value_ = 0;
  int64_t since_best_ = 0;
};

}  // namespace hypermoe
