// The data of a run, opened: token files, or the examples of a task.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"
#include "runtime/task.h"
#include "runtime/task_evaluation.h"
#include "runtime/tokenizer.h"
#include "runtime/training_data.h"

namespace hypermoe {

struct RunData {
  std::shared_ptr<const TrainingData> train;
  std::shared_ptr<const ValidationData> validation;
  std::string fingerprint;  // of all that they hold
  std::string description;  // "12345 training tokens"
  int64_t row_length = 0;   // tokens that the model reads of a row, at most
  int64_t epoch_rows = 0;   // training rows of an epoch of a task
  // Of a run on a task; null and empty for token files and, but for the task, plain text.
  const Task* task = nullptr;
  std::shared_ptr<const Tokenizer> tokenizer;
  TaskExamples examples;  // of the validation
};

// `config` has passed ValidateConfig. Errors: those of OpenSplits, TaskFile and Task::ReadFile;
// DataError for files without examples, or with too little text for one row. Local.
absl::StatusOr<RunData> OpenRunData(const RunConfig& config);

// The same for data.folder's files of `task`, whatever data.task is.
absl::StatusOr<RunData> OpenTaskData(const Task& task, const RunConfig& config);

// The validation rows of a text's tokens, as those of a run.
absl::StatusOr<std::shared_ptr<const ValidationData>> OpenTaskText(const Task& task,
                                                                   const RunConfig& config,
                                                                   TaskSplit split);

// The examples of a split, to be evaluated. Labels may only be missing from the test split.
absl::StatusOr<TaskExamples> OpenTaskExamples(const Task& task, const RunConfig& config,
                                              TaskSplit split, const Tokenizer& tokenizer);

// Identifies tokens and references.
std::string FingerprintOf(const TaskExamples& examples);

// "3 sources and 1 target of them are cut to 256 and 8 tokens", or "".
std::string DescribeCuts(const ExampleTokens& tokens, const ExampleLengths& longest);

}  // namespace hypermoe
