#include "runtime/score_runs.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/score_files.h"

namespace hypermoe {
namespace {

// What all files are read with.
struct Measuring {
  DataConfig::Templates templates;
  MetricOptions metrics;
  std::vector<TaskExample> examples;  // of the references; none of plain text
};

absl::StatusOr<Measuring> PrepareMeasuring(const ScoreOptions& options) {
  Measuring measuring;
  measuring.templates = options.templates.value_or(
      AnswerKindOf(*options.task) == AnswerKind::kText ? DataConfig::off : DataConfig::t5);
  measuring.metrics = MetricOptionsOf(options.templates.value_or(DataConfig::t5));
  measuring.metrics.stemmer = options.stemmer.value_or(measuring.metrics.stemmer);
  if (options.task->is_text() != options.references.empty()) {
    return UsageError(options.task->is_text()
                          ? absl::StrCat("--references ", options.references, ": the losses of ",
                                         std::string(options.task->name()),
                                         " are compared with nothing; leave it out")
                          : absl::StrCat("--references is missing: give the task's file, or JSON "
                                         "lines with `reference`, for ",
                                         std::string(options.task->name())));
  }
  if (options.task->is_text()) return measuring;
  ASSIGN_OR_RETURN(measuring.examples,
                   ReadReferences(*options.task, options.references, measuring.templates));
  return measuring;
}

// The files of one model, ready to be resampled.
struct Measured {
  ScoredModel model;
  std::vector<PreparedMetrics> metrics;    // of each file
  std::vector<std::vector<size_t>> units;  // of the examples, which all files share
};

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double SampleDeviation(const std::vector<double>& values) {
  const double mean = Mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

void Summarize(ScoredModel* model) {
  for (size_t metric = 0; metric < model->files[0].values.size(); ++metric) {
    std::vector<double> values;
    for (const ScoredFile& file : model->files) values.push_back(file.values[metric]);
    model->means.push_back(Mean(values));
    if (values.size() > 1) model->deviations.push_back(SampleDeviation(values));
  }
}

absl::StatusOr<Measured> MeasureFiles(const ScoreOptions& options, const Measuring& measuring,
                                      const std::vector<std::string>& paths) {
  Measured measured;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const Predictions predictions,
                     options.task->is_text()
                         ? ReadBlockLosses(path)
                         : ReadPredictions(*options.task, path, options.references,
                                           measuring.examples, measuring.templates));
    PreparedMetrics metrics(*options.task, predictions.examples, measuring.metrics);
    ScoredFile file{path, {}, predictions.missing, predictions.unknown, metrics.invalid()};
    for (const MetricValue& value : metrics.Values()) file.values.push_back(value.value);
    measured.units = DrawnTogether(predictions.examples);
    measured.model.files.push_back(std::move(file));
    measured.metrics.push_back(std::move(metrics));
  }
  Summarize(&measured.model);
  return measured;
}

// Without references nothing else says that files are about the same blocks.
absl::Status CheckSameCount(const Measured& measured, int64_t examples) {
  for (size_t i = 0; i < measured.metrics.size(); ++i) {
    if (measured.metrics[i].examples() == examples) continue;
    return DataError(absl::StrCat(
        Printable(measured.model.files[i].path), " has ", measured.metrics[i].examples(),
        " blocks, the first file of predictions ", examples, ": give files about the same text"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ScoreResult> Score(const ScoreOptions& options) {
  ASSIGN_OR_RETURN(const Measuring measuring, PrepareMeasuring(options));
  ASSIGN_OR_RETURN(const Measured measured, MeasureFiles(options, measuring, options.predictions));
  ScoreResult result;
  result.task = std::string(options.task->name());
  result.references = options.references;
  result.examples = measured.metrics[0].examples();
  result.bootstrap = options.bootstrap;
  for (const MetricType* type : measured.metrics[0].types()) result.metrics.emplace_back(type->key);
  result.model = measured.model;
  RETURN_IF_ERROR(CheckSameCount(measured, result.examples));
  if (options.compare.empty()) return result;

  ASSIGN_OR_RETURN(const Measured compared, MeasureFiles(options, measuring, options.compare));
  RETURN_IF_ERROR(CheckSameCount(compared, result.examples));
  for (size_t i = 0; i < result.metrics.size(); ++i)
    result.differences.push_back(measured.model.means[i] - compared.model.means[i]);
  result.intervals =
      DifferenceIntervals(measured.metrics, compared.metrics, measured.units, options.bootstrap);
  result.compared = compared.model;
  return result;
}

}  // namespace hypermoe
