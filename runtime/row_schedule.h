// Which token file each training row comes from.
#pragma once

#include <cstdint>
#include <vector>

namespace hypermoe {

// Draws rows from sources with given shares. After any number n of rows, source i has been drawn
// more than n share_i - 1 and fewer than n share_i + 1 times: the fewest consecutive rows hold the
// mixture that the shares promise, nothing is left to chance, and a row's source depends on nothing
// but its number.
//
// The schedule is Tijdeman's (the chairman assignment problem, 1980): row number t is due to source
// i for the (k+1)-th time from t = floor(k / share_i) on, and before ceil((k+1) / share_i); always
// the most urgent draw is taken. It repeats after period() rows, so it is kept as a table and any
// row is found at once.
//
// Shares are whole numbers of rows of a period: the smallest period that expresses the weights
// exactly (2:1 has 3 rows, 0.7:0.2:0.1 has 10), and at most kMaxPeriod, for which shares are
// rounded to the nearest one in 1048576.
class RowSchedule {
 public:
  static constexpr int64_t kMaxPeriod = int64_t{1} << 20;

  struct Draw {
    int64_t source = 0;
    int64_t number = 0;  // how often the source has been drawn before
  };

  // Weights are positive and finite, each at least 1 / kMaxPeriod of their sum; one at least.
  explicit RowSchedule(const std::vector<double>& weights);
  // Row `row` >= 0 of all time.
  Draw At(int64_t row) const;
  int64_t period() const { return static_cast<int64_t>(slots_.size()); }
  // Rows of each source in a period.
  const std::vector<int64_t>& rows_of_period() const { return rows_of_period_; }

 private:
  struct Slot {
    int32_t source;
    int32_t number;  // within the period
  };
  void FillSlots(int64_t period);

  std::vector<int64_t> rows_of_period_;
  std::vector<Slot> slots_;
};

}  // namespace hypermoe
