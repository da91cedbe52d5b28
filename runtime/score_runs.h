// Scores files of predictions: those of one model, of several trainings of it (seeds), or of two
// models that are to be compared.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/bootstrap.h"
#include "runtime/score.h"
#include "runtime/task.h"

namespace hypermoe {

struct ScoreOptions {
  const Task* task = nullptr;
  std::string references;                // "" for a task of plain text
  std::vector<std::string> predictions;  // one file a seed
  std::vector<std::string> compare;      // of another model; may be empty
  // Not given: labels and scores in the words of T5's templates, texts as they are published.
  std::optional<DataConfig::Templates> templates;
  // Not given: as `templates` says where they are given, else false.
  std::optional<bool> stemmer;
  BootstrapOptions bootstrap;
};

struct ScoredFile {
  std::string path;
  std::vector<double> values;  // of the metrics
  int64_t missing = 0, unknown = 0, invalid = 0;
};

// The files of one model.
struct ScoredModel {
  std::vector<ScoredFile> files;
  std::vector<double> means;
  std::vector<double> deviations;  // sample standard deviations over the files; of one file empty
};

struct ScoreResult {
  std::string task, references;
  int64_t examples = 0;
  std::vector<std::string> metrics;  // MetricType::key
  ScoredModel model;
  std::optional<ScoredModel> compared;
  // How far the model's means are above those of the compared one.
  std::vector<double> differences;
  std::vector<Interval> intervals;  // of those
  BootstrapOptions bootstrap;
};

absl::StatusOr<ScoreResult> Score(const ScoreOptions& options);

// What people read, with the last line for programs: a JSON object with the means by name,
// examples, missing, unknown and invalid; of several files `seeds` and `standard_deviation`, of two
// models `compared` and `difference` too.
std::string ScoreText(const ScoreResult& result);

}  // namespace hypermoe
