#include "runtime/label_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"

namespace hypermoe {
namespace {

constexpr int kMaxLabels = 1 << 10;
constexpr int kNoLabel = -1;

int LabelOf(const std::string& answer) {
  int label = 0;
  return absl::SimpleAtoi(answer, &label) && label >= 0 && label < kMaxLabels ? label : kNoLabel;
}

// How often each answer was given where each label is right.
class Confusion {
 public:
  // Labels below `labels`, and kNoLabel.
  explicit Confusion(int labels)
      : width_(static_cast<size_t>(labels) + 1), counts_(width_ * width_, 0) {}

  int labels() const { return static_cast<int>(width_) - 1; }
  double& At(int reference, int answer) {
    return counts_[Index(reference) * width_ + Index(answer)];
  }
  double At(int reference, int answer) const {
    return counts_[Index(reference) * width_ + Index(answer)];
  }
  double References(int label) const { return Sum(label, true); }
  double Answers(int label) const { return Sum(label, false); }

 private:
  size_t Index(int label) const {
    return label == kNoLabel ? width_ - 1 : static_cast<size_t>(label);
  }
  double Sum(int label, bool references) const {
    double sum = 0;
    for (int other = kNoLabel; other < labels(); ++other)
      sum += references ? At(label, other) : At(other, label);
    return sum;
  }

  size_t width_;
  std::vector<double> counts_;
};

double Ratio(double part, double whole) { return whole == 0 ? 0 : part / whole; }

double Accuracy(const Confusion& confusion) {
  double right = 0, all = 0;
  for (int label = 0; label < confusion.labels(); ++label) {
    right += confusion.At(label, label);
    all += confusion.References(label);
  }
  return Ratio(right, all);
}

double F1(const Confusion& confusion) {
  const double found = confusion.At(1, 1), missed = confusion.References(1) - found;
  const double wrong = confusion.References(0) - confusion.At(0, 0);
  return Ratio(2 * found, 2 * found + missed + wrong);
}

double MacroF1(const Confusion& confusion) {
  double sum = 0;
  for (int label = 0; label < confusion.labels(); ++label) {
    sum += Ratio(2 * confusion.At(label, label),
                 confusion.References(label) + confusion.Answers(label));
  }
  return sum / confusion.labels();
}

double Matthews(const Confusion& confusion) {
  double right = 0, all = 0, both = 0, answers = 0, references = 0;
  for (int label = kNoLabel; label < confusion.labels(); ++label) {
    const double given = confusion.Answers(label), wanted = confusion.References(label);
    right += confusion.At(label, label);
    all += wanted;
    both += given * wanted;
    answers += given * given;
    references += wanted * wanted;
  }
  // Counts, so that both differences are exact, and 0 where there is one label only.
  return Ratio(right * all - both,
               std::sqrt(all * all - answers) * std::sqrt(all * all - references));
}

class ConfusionMetric : public Metric {
 public:
  // `fewest_labels`: that `measure` asks for whatever the examples have.
  ConfusionMetric(Examples examples, int fewest_labels, double (*measure)(const Confusion&))
      : labels_(fewest_labels), measure_(measure) {
    for (const MeasuredExample& example : examples) {
      pairs_.emplace_back(LabelOf(example.references[0]), LabelOf(example.answer));
      labels_ = std::max({labels_, pairs_.back().first + 1, pairs_.back().second + 1});
    }
  }
  double Value(absl::Span<const int32_t> times) const override {
    Confusion confusion(labels_);
    for (size_t i = 0; i < pairs_.size(); ++i)
      confusion.At(pairs_[i].first, pairs_[i].second) += times[i];
    return 100 * measure_(confusion);
  }

 private:
  int labels_;
  double (*measure_)(const Confusion&);
  std::vector<std::pair<int, int>> pairs_;  // reference and answer
};

class GroupMetric : public Metric {
 public:
  enum class Of { kAllRight, kShareRight };
  GroupMetric(Examples examples, Of of) : of_(of) {
    std::map<std::string, size_t> known;
    for (size_t i = 0; i < examples.size(); ++i) {
      const MeasuredExample& example = examples[i];
      const auto group = known.emplace(example.group, groups_.size());
      if (example.group.empty() || group.second) groups_.emplace_back();
      Members& members = example.group.empty() ? groups_.back() : groups_[group.first->second];
      members.emplace_back(i, example.answer == example.references[0]);
    }
  }
  double Value(absl::Span<const int32_t> times) const override {
    double sum = 0, count = 0;
    for (const Members& members : groups_) {
      int32_t most = 0;
      double right = 0, all = 0;
      for (const auto& [example, is_right] : members) {
        most = std::max(most, times[example]);
        all += times[example];
        if (is_right) right += times[example];
      }
      const double value = of_ == Of::kAllRight ? (right == all ? 1 : 0) : Ratio(right, all);
      sum += most * value;
      count += most;
    }
    return 100 * Ratio(sum, count);
  }

 private:
  using Members = std::vector<std::pair<size_t, bool>>;  // examples, and whether each is right
  Of of_;
  std::vector<Members> groups_;
};

}  // namespace

std::unique_ptr<Metric> PrepareAccuracy(Examples examples, const MetricOptions&) {
  return std::make_unique<ConfusionMetric>(examples, 1, Accuracy);
}
std::unique_ptr<Metric> PrepareF1(Examples examples, const MetricOptions&) {
  return std::make_unique<ConfusionMetric>(examples, 2, F1);
}
std::unique_ptr<Metric> PrepareMacroF1(Examples examples, const MetricOptions&) {
  return std::make_unique<ConfusionMetric>(examples, 1, MacroF1);
}
std::unique_ptr<Metric> PrepareMatthews(Examples examples, const MetricOptions&) {
  return std::make_unique<ConfusionMetric>(examples, 1, Matthews);
}
std::unique_ptr<Metric> PrepareQuestionMatch(Examples examples, const MetricOptions&) {
  return std::make_unique<GroupMetric>(examples, GroupMetric::Of::kAllRight);
}
std::unique_ptr<Metric> PrepareGroupAccuracy(Examples examples, const MetricOptions&) {
  return std::make_unique<GroupMetric>(examples, GroupMetric::Of::kShareRight);
}

}  // namespace hypermoe
