#include "runtime/text_metrics.h"

#include <algorithm>
#include <utility>

#include "runtime/mean_metric.h"
#include "runtime/rouge.h"
#include "runtime/squad_answers.h"

namespace hypermoe {
namespace {

using Examples = absl::Span<const MeasuredExample>;

// The mean over the examples of the best value over the references; `read` turns a text into what
// `compare` takes two of.
template <typename Read, typename Compare>
std::unique_ptr<Metric> MeanOfBest(Examples examples, const Read& read, const Compare& compare) {
  std::vector<double> values(examples.size(), 0);
  for (size_t i = 0; i < examples.size(); ++i) {
    if (examples[i].missing) continue;
    const auto answer = read(examples[i].answer);
    for (const std::string& reference : examples[i].references)
      values[i] = std::max(values[i], static_cast<double>(compare(answer, read(reference))));
  }
  return std::make_unique<MeanMetric>(std::move(values));
}

std::unique_ptr<Metric> PrepareRougeRuns(Examples examples, const MetricOptions& options,
                                         size_t length) {
  return MeanOfBest(
      examples, [&](const std::string& text) { return SplitForRouge(text, options.stemmer); },
      [&](const RougeWords& answer, const RougeWords& reference) {
        return RougeRuns(answer, reference, length).f;
      });
}

}  // namespace

std::unique_ptr<Metric> PrepareTextAccuracy(Examples examples, const MetricOptions&) {
  return MeanOfBest(
      examples, [](const std::string& text) { return text; },
      [](const std::string& answer, const std::string& reference) { return answer == reference; });
}

std::unique_ptr<Metric> PrepareExactMatch(Examples examples, const MetricOptions&) {
  AnswerNormalizer normalizer;
  return MeanOfBest(
      examples, [&](const std::string& text) { return normalizer.Words(text); },
      [](const auto& answer, const auto& reference) { return answer == reference; });
}

std::unique_ptr<Metric> PrepareTokenF1(Examples examples, const MetricOptions&) {
  AnswerNormalizer normalizer;
  return MeanOfBest(
      examples, [&](const std::string& text) { return normalizer.Words(text); }, WordsF1);
}

std::unique_ptr<Metric> PrepareRouge1(Examples examples, const MetricOptions& options) {
  return PrepareRougeRuns(examples, options, 1);
}
std::unique_ptr<Metric> PrepareRouge2(Examples examples, const MetricOptions& options) {
  return PrepareRougeRuns(examples, options, 2);
}
std::unique_ptr<Metric> PrepareRougeL(Examples examples, const MetricOptions& options) {
  return MeanOfBest(
      examples, [&](const std::string& text) { return SplitForRouge(text, options.stemmer); },
      [](const RougeWords& answer, const RougeWords& reference) {
        return RougeSubsequence(answer, reference).f;
      });
}
std::unique_ptr<Metric> PrepareRougeLsum(Examples examples, const MetricOptions& options) {
  return MeanOfBest(
      examples, [&](const std::string& text) { return SplitLinesForRouge(text, options.stemmer); },
      [](const auto& answer, const auto& reference) { return RougeLines(answer, reference).f; });
}

}  // namespace hypermoe
