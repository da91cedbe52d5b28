#include "runtime/correlation_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/numbers.h"
#include "runtime/mean_metric.h"

namespace hypermoe {
namespace {

using Times = absl::Span<const int32_t>;

constexpr double kNoScore = -1;

double ScoreOf(const std::string& answer) {
  double score = 0;
  return absl::SimpleAtod(answer, &score) && std::isfinite(score) ? score : kNoScore;
}

struct Pairs {
  explicit Pairs(absl::Span<const MeasuredExample> examples) {
    for (const MeasuredExample& example : examples) {
      answers.push_back(ScoreOf(example.answer));
      references.push_back(ScoreOf(example.references[0]));
    }
  }
  std::vector<double> answers, references;
};

// Looked for in the values themselves: a variance of equal ones can be off zero by rounding.
bool AllSame(absl::Span<const double> values, Times times) {
  const double* first = nullptr;
  for (size_t i = 0; i < values.size(); ++i) {
    if (times[i] == 0) continue;
    if (first == nullptr) first = &values[i];
    if (values[i] != *first) return false;
  }
  return true;
}

double Correlation(absl::Span<const double> a, absl::Span<const double> b, Times times) {
  if (AllSame(a, times) || AllSame(b, times)) return 0;
  const double mean_a = MeanOf(a, times), mean_b = MeanOf(b, times);
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double from_a = a[i] - mean_a, from_b = b[i] - mean_b;
    aa += times[i] * from_a * from_a;
    bb += times[i] * from_b * from_b;
    ab += times[i] * from_a * from_b;
  }
  // Squares of the smallest or largest numbers can leave the range of a double.
  const double correlation = ab / (std::sqrt(aa) * std::sqrt(bb));
  return std::isfinite(correlation) ? std::clamp(correlation, -1.0, 1.0) : 0;
}

std::vector<size_t> AscendingOrder(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] < values[b]; });
  return order;
}

// Calls `visit` with the places in `order` of each run of equal values, from the smallest on.
template <typename Visit>
void ForEachRun(const std::vector<double>& values, const std::vector<size_t>& order,
                const Visit& visit) {
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    visit(absl::MakeConstSpan(order).subspan(begin, end - begin));
  }
}

class PearsonMetric : public Metric {
 public:
  explicit PearsonMetric(absl::Span<const MeasuredExample> examples) : pairs_(examples) {}
  double Value(Times times) const override {
    return 100 * Correlation(pairs_.answers, pairs_.references, times);
  }

 private:
  Pairs pairs_;
};

// Sorted once, so that ranks take a pass for each resample.
class Ranking {
 public:
  explicit Ranking(std::vector<double> values)
      : values_(std::move(values)), order_(AscendingOrder(values_)) {}

  std::vector<double> Ranks(Times times) const {
    std::vector<double> ranks(values_.size());
    double before = 0;
    ForEachRun(values_, order_, [&](absl::Span<const size_t> run) {
      double count = 0;
      for (const size_t i : run) count += times[i];
      for (const size_t i : run) ranks[i] = before + (count + 1) / 2;
      before += count;
    });
    return ranks;
  }

 private:
  std::vector<double> values_;
  std::vector<size_t> order_;
};

class SpearmanMetric : public Metric {
 public:
  explicit SpearmanMetric(Pairs pairs)
      : answers_(std::move(pairs.answers)), references_(std::move(pairs.references)) {}
  double Value(Times times) const override {
    return 100 * Correlation(answers_.Ranks(times), references_.Ranks(times), times);
  }

 private:
  Ranking answers_, references_;
};

// From the smallest score on, how often each has a reference of 0 and of 1.
class AreaMetric : public Metric {
 public:
  struct Counts {
    double negative = 0, positive = 0;
  };
  AreaMetric(Pairs pairs, double (*area)(const std::vector<Counts>&, const Counts&))
      : pairs_(std::move(pairs)), order_(AscendingOrder(pairs_.answers)), area_(area) {}

  double Value(Times times) const override {
    std::vector<Counts> runs;
    Counts all;
    ForEachRun(pairs_.answers, order_, [&](absl::Span<const size_t> run) {
      Counts here;
      for (const size_t i : run)
        (pairs_.references[i] == 1 ? here.positive : here.negative) += times[i];
      all.negative += here.negative;
      all.positive += here.positive;
      runs.push_back(here);
    });
    return all.negative == 0 || all.positive == 0 ? 0 : 100 * area_(runs, all);
  }

 private:
  Pairs pairs_;
  std::vector<size_t> order_;
  double (*area_)(const std::vector<Counts>& runs, const Counts& all);
};

// The share of pairs of a negative and a positive that the scores put in order; equal ones half.
double AreaUnderRoc(const std::vector<AreaMetric::Counts>& runs, const AreaMetric::Counts& all) {
  double area = 0, below = 0;
  for (const AreaMetric::Counts& run : runs) {
    area += run.positive * (below + run.negative / 2);
    below += run.negative;
  }
  return area / (all.negative * all.positive);
}

double AveragePrecision(const std::vector<AreaMetric::Counts>& runs,
                        const AreaMetric::Counts& all) {
  double sum = 0, positive = 0, taken = 0;
  for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
    positive += run->positive;
    taken += run->positive + run->negative;
    if (taken > 0) sum += run->positive * positive / taken;
  }
  return sum / all.positive;
}

}  // namespace

std::unique_ptr<Metric> PreparePearson(absl::Span<const MeasuredExample> examples,
                                       const MetricOptions&) {
  return std::make_unique<PearsonMetric>(examples);
}
std::unique_ptr<Metric> PrepareSpearman(absl::Span<const MeasuredExample> examples,
                                        const MetricOptions&) {
  return std::make_unique<SpearmanMetric>(Pairs(examples));
}
std::unique_ptr<Metric> PrepareAucRoc(absl::Span<const MeasuredExample> examples,
                                      const MetricOptions&) {
  return std::make_unique<AreaMetric>(Pairs(examples), AreaUnderRoc);
}
std::unique_ptr<Metric> PrepareAucPr(absl::Span<const MeasuredExample> examples,
                                     const MetricOptions&) {
  return std::make_unique<AreaMetric>(Pairs(examples), AveragePrecision);
}

}  // namespace hypermoe
