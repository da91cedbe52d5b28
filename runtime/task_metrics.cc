#include "runtime/task_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/correlation_metrics.h"
#include "runtime/label_metrics.h"
#include "runtime/mean_metric.h"
#include "runtime/text_metrics.h"

namespace hypermoe {
namespace {

class PerplexityMetric : public Metric {
 public:
  explicit PerplexityMetric(std::vector<double> losses) : losses_(std::move(losses)) {}
  double Value(absl::Span<const int32_t> times) const override {
    const bool any = std::any_of(times.begin(), times.end(), [](int32_t n) { return n > 0; });
    return any ? Perplexity(MeanOf(losses_, times)) : 0;
  }

 private:
  std::vector<double> losses_;
};

std::unique_ptr<Metric> PreparePerplexity(Examples examples, const MetricOptions&) {
  std::vector<double> losses;
  for (const MeasuredExample& example : examples) losses.push_back(example.loss);
  return std::make_unique<PerplexityMetric>(std::move(losses));
}

std::unique_ptr<Metric> PrepareAuthorsPerplexity(Examples examples, const MetricOptions&) {
  std::vector<double> losses;
  for (const MeasuredExample& example : examples)
    losses.push_back(example.loss + example.balance_loss);
  return std::make_unique<PerplexityMetric>(std::move(losses));
}

}  // namespace

const std::vector<MetricType>& AllMetrics() {
  using enum AnswerKind;
  static const auto* const metrics = new std::vector<MetricType>{
      {"accuracy", "accuracy", kLabel, false, PrepareAccuracy},
      {"f1", "f1", kLabel, false, PrepareF1},
      {"macro_f1", "macro_f1", kLabel, false, PrepareMacroF1},
      {"matthews", "matthews", kLabel, false, PrepareMatthews},
      {"question_match", "exact_match", kLabel, false, PrepareQuestionMatch},
      {"group_accuracy", "group_accuracy", kLabel, false, PrepareGroupAccuracy},
      {"pearson", "pearson", kScore, false, PreparePearson},
      {"spearman", "spearman", kScore, false, PrepareSpearman},
      {"auc_roc", "auc_roc", kScore, false, PrepareAucRoc},
      {"auc_pr", "auc_pr", kScore, false, PrepareAucPr},
      {"text_accuracy", "accuracy", kText, false, PrepareTextAccuracy},
      {"exact_match", "exact_match", kText, false, PrepareExactMatch},
      {"token_f1", "f1", kText, false, PrepareTokenF1},
      {"rouge1", "rouge1", kText, false, PrepareRouge1},
      {"rouge2", "rouge2", kText, false, PrepareRouge2},
      {"rougeL", "rougeL", kText, false, PrepareRougeL},
      {"rougeLsum", "rougeLsum", kText, false, PrepareRougeLsum},
      {"perplexity", "perplexity", kLoss, true, PreparePerplexity},
      {"authors_perplexity", "authors_perplexity", kLoss, true, PrepareAuthorsPerplexity}};
  return *metrics;
}

const MetricType* FindMetric(std::string_view name) {
  for (const MetricType& metric : AllMetrics()) {
    if (metric.name == name) return &metric;
  }
  return nullptr;
}

double Perplexity(double loss) {
  const double perplexity = std::exp(loss);
  return std::isfinite(perplexity) ? perplexity : std::numeric_limits<double>::max();
}

}  // namespace hypermoe
