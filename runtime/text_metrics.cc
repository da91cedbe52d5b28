#include "runtime/text_metrics.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "runtime/lower_case.h"
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
      examples,
      [&](const std::string& text) { return SplitForRouge(text, options.stemmer); },
      [&](const RougeWords& answer, const RougeWords& reference) {
        return RougeRuns(answer, reference, length).f;
      });
}

// As T5 cleans WSC's answers before it compares them.
std::set<std::string> ReferentWords(const std::string& text) {
  static const auto* const determiners = new std::set<std::string>{
      "a",  "an",  "few",  "her",  "his", "each",  "every", "many",  "much",  "my",    "our",
      "some", "that", "the", "their", "these", "this", "those", "which", "whose", "your"};
  std::set<std::string> words;
  for (const auto word :
       absl::StrSplit(LowerCase(text), absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty())) {
    if (determiners->count(std::string(word)) == 0) words.emplace(word);
  }
  return words;
}

bool HasApostrophe(const std::set<std::string>& words) {
  return std::any_of(words.begin(), words.end(), [](const std::string& word) {
    return word.find('\'') != std::string::npos;
  });
}

// "Bob" is not "Bob's hat".
bool SameReferent(const std::set<std::string>& a, const std::set<std::string>& b) {
  return HasApostrophe(a) == HasApostrophe(b) &&
         (std::includes(a.begin(), a.end(), b.begin(), b.end()) ||
          std::includes(b.begin(), b.end(), a.begin(), a.end()));
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
      examples,
      [&](const std::string& text) { return SplitForRouge(text, options.stemmer); },
      [](const RougeWords& answer, const RougeWords& reference) {
        return RougeSubsequence(answer, reference).f;
      });
}
std::unique_ptr<Metric> PrepareRougeLsum(Examples examples, const MetricOptions& options) {
  return MeanOfBest(
      examples,
      [&](const std::string& text) { return SplitLinesForRouge(text, options.stemmer); },
      [](const auto& answer, const auto& reference) { return RougeLines(answer, reference).f; });
}

std::unique_ptr<Metric> PrepareReferentAccuracy(Examples examples, const MetricOptions&) {
  std::vector<double> values;
  for (const MeasuredExample& example : examples) {
    const std::set<std::string> answer = ReferentWords(example.answer);
    const bool is_referent = example.references.size() < 2 || example.references[1] == "1";
    const bool says_so = SameReferent(answer, ReferentWords(example.references[0]));
    values.push_back(!answer.empty() && says_so == is_referent ? 1 : 0);
  }
  return std::make_unique<MeanMetric>(std::move(values));
}

}  // namespace hypermoe
