#include "runtime/row_schedule.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace hypermoe {
namespace {

// Closer to a whole number of rows than any rounding of the weights themselves.
constexpr double kWholeRow = 1e-9;

// The smallest period in which every share is a whole number of rows, or kMaxPeriod.
int64_t PeriodOf(const std::vector<double>& shares) {
  for (int64_t period = 1; period < RowSchedule::kMaxPeriod; ++period) {
    const bool whole = std::all_of(shares.begin(), shares.end(), [period](double share) {
      const double rows = share * static_cast<double>(period);
      return rows > 0.5 && std::abs(rows - std::round(rows)) <= kWholeRow;
    });
    if (whole) return period;
  }
  return RowSchedule::kMaxPeriod;
}

// Rounds so that the sum is `period`: the largest remainders are rounded up, and no source is left
// without a row.
std::vector<int64_t> RoundToPeriod(const std::vector<double>& shares, int64_t period) {
  std::vector<int64_t> rows;
  std::vector<double> remainders;
  for (const double share : shares) {
    const double exact = share * static_cast<double>(period) + kWholeRow;
    rows.push_back(std::max<int64_t>(1, static_cast<int64_t>(std::floor(exact))));
    remainders.push_back(exact - static_cast<double>(rows.back()));
  }
  int64_t missing = period - std::accumulate(rows.begin(), rows.end(), int64_t{0});
  for (; missing > 0; --missing) {
    const auto largest = std::max_element(remainders.begin(), remainders.end());
    ++rows[static_cast<size_t>(largest - remainders.begin())];
    *largest -= 1;
  }
  for (; missing < 0; ++missing) --*std::max_element(rows.begin(), rows.end());
  return rows;
}

}  // namespace

RowSchedule::RowSchedule(const std::vector<double>& weights) {
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;  // of weights below 1, so that it is finite
  for (const double weight : weights) sum += weight / largest;
  std::vector<double> shares;
  for (const double weight : weights) shares.push_back(weight / largest / sum);
  const int64_t period = PeriodOf(shares);
  rows_of_period_ = RoundToPeriod(shares, period);
  FillSlots(period);
}

void RowSchedule::FillSlots(int64_t period) {
  std::vector<int64_t> drawn(rows_of_period_.size(), 0);
  slots_.reserve(static_cast<size_t>(period));
  for (int64_t slot = 0; slot < period; ++slot) {
    size_t most_urgent = drawn.size();
    int64_t earliest_end = 0;
    for (size_t i = 0; i < drawn.size(); ++i) {
      const int64_t rows = rows_of_period_[i];
      if (drawn[i] * period / rows > slot) continue;  // not due yet
      const int64_t end = ((drawn[i] + 1) * period + rows - 1) / rows;
      if (most_urgent == drawn.size() || end < earliest_end) {
        most_urgent = i;
        earliest_end = end;
      }
    }
    slots_.push_back(
        {static_cast<int32_t>(most_urgent), static_cast<int32_t>(drawn[most_urgent]++)});
  }
}

RowSchedule::Draw RowSchedule::At(int64_t row) const {
  const Slot slot = slots_[static_cast<size_t>(row % period())];
  return {slot.source,
          row / period() * rows_of_period_[static_cast<size_t>(slot.source)] + slot.number};
}

}  // namespace hypermoe
