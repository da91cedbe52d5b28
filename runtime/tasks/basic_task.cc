#include "runtime/tasks/basic_task.h"

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {

SplitFiles GlueFiles() { return {{"train.tsv"}, {"dev.tsv"}, {"test.tsv"}}; }

SplitFiles SuperGlueFiles() {
  return {{"train.jsonl", "train32.jsonl"}, {"val.jsonl", "dev32.jsonl"}, {"test.jsonl"}};
}

TaskDefaults LabelDefaults() {
  TaskDefaults defaults;
  defaults.target_length = 16;
  defaults.max_length = 16;
  return defaults;
}

std::vector<std::string> BasicTask::FileNames(TaskSplit split) const {
  switch (split) {
    case TaskSplit::kTrain:
      return info_.files.train;
    case TaskSplit::kValidation:
      return info_.files.validation;
    case TaskSplit::kTest:
      return info_.files.test;
  }
  return {};
}

std::string BasicTask::AnswerOf(std::string_view output, const TaskExample&,
                                DataConfig::Templates) const {
  return std::string(output);
}

absl::StatusOr<std::vector<TaskExample>> RowTask::ReadFile(const std::string& path,
                                                           DataConfig::Templates templates,
                                                           TaskUse use, bool labels_needed) const {
  const ReadOptions options{templates, use, labels_needed || use == TaskUse::kTraining};
  std::vector<TaskExample> examples;
  RETURN_IF_ERROR(read_rows_(
      path, [&](const ExampleRow& row) { return AddExamples(row, options, &examples); }));
  RETURN_IF_ERROR(CheckNotEmpty(examples, path));
  return examples;
}

absl::Status CheckNotEmpty(const std::vector<TaskExample>& examples, const std::string& path) {
  if (!examples.empty()) return absl::OkStatus();
  return DataError(absl::StrCat(Printable(path), ": has no example; expected at least one"));
}

absl::Status SetLabel(const ExampleRow& row, std::string_view field, const LabelSet& labels,
                      const ReadOptions& options, TaskExample* example) {
  if (row.Find(field) == nullptr && !options.labels_needed) {
    example->target = kUnknownTarget;
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const int64_t label, labels.Read(row, field));
  example->target = labels.Text(label, options.templates);
  example->references = {absl::StrCat(label)};
  return absl::OkStatus();
}

}  // namespace hypermoe
