// What a model is fine-tuned to do: files of examples, what the model reads and writes of each, and
// what its outputs are measured by.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// An example in the words of a family of templates (DataConfig.templates).
struct TaskExample {
  std::string id;      // as the file has it; "" where it has none
  std::string source;  // what the encoder reads
  // What the model is to write; in evaluation what it would be right to write (T5's WSC: the noun
  // that the pronoun may stand for), "<unk>" where the file does not say.
  std::string target;
  // What an answer is compared with, each as Task::AnswerOf gives answers: texts that count as
  // right, a label's number ("0", "1", ...) or a score. None where the file does not say.
  std::vector<std::string> references;
  std::string group;  // examples of one question, where a metric counts those (MultiRC); else ""
};

enum class TaskSplit { kTrain, kValidation, kTest };
// In training an example may be left out (WSC's false ones) or become several (one an answer of
// ReCoRD); in evaluation each one of the file is there exactly once.
enum class TaskUse { kTraining, kEvaluation };

// What holds where the configuration does not say otherwise: the paper's (model_semantics 3.2).
struct TaskDefaults {
  int64_t source_length = 256;  // tokens, end id included
  int64_t target_length = 0;
  int64_t beams = 1;
  int64_t no_repeat_ngram = 0;
  int64_t min_length = 0;  // tokens of an output, without the start token
  int64_t max_length = 0;
};

// One entry of the table of tasks; stateless, for use by several threads.
class Task {
 public:
  virtual ~Task() = default;

  virtual std::string_view name() const = 0;   // as in --task: "sst2"
  virtual std::string_view title() const = 0;  // as in papers: "SST-2"
  virtual TaskDefaults defaults() const = 0;
  // Names of metrics (task_metrics.h), the first of which says which of two models is better.
  virtual std::vector<std::string_view> metrics() const = 0;
  // Whether the task is plain text that a model without an encoder predicts: `ReadFile` then gives
  // one example, whose target is the whole text.
  virtual bool is_text() const { return false; }

  // File names that a folder may hold the split under; the first that is there is it.
  virtual std::vector<std::string> FileNames(TaskSplit split) const = 0;

  // Examples of a file in its order. Malformed files are DataError with file, line, field and what
  // was expected; a file without labels too, unless `use` is evaluation and `labels_needed` false.
  virtual absl::StatusOr<std::vector<TaskExample>> ReadFile(const std::string& path,
                                                            DataConfig::Templates templates,
                                                            TaskUse use,
                                                            bool labels_needed = true) const = 0;

  // What the text of an output for `example`, read with the same templates, says: the number of the
  // label whose word it is exactly, "-1" for none; a score, "" if it is no number; else the text as
  // it is. (T5's WSC alone looks at the example: "1" if the output is its noun, else "0".)
  virtual std::string AnswerOf(std::string_view output, const TaskExample& example,
                               DataConfig::Templates templates) const = 0;
};

// nullptr if there is none of that name.
const Task* FindTask(std::string_view name);
// In the order of the paper's tables.
const std::vector<const Task*>& AllTasks();

// FindTask, or UsageError that lists the names.
absl::StatusOr<const Task*> TaskNamed(std::string_view name);
// The file of the split in `folder`. DataError that lists the names tried if none is there.
absl::StatusOr<std::string> TaskFile(const Task& task, const std::string& folder, TaskSplit split);

}  // namespace hypermoe
