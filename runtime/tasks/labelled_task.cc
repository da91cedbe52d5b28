#include "runtime/tasks/labelled_task.h"

#include <utility>

namespace hypermoe {

LabelledTask::LabelledTask(TaskInfo info, ReadRows read_rows, Fields fields, LabelSet labels,
                           SourceTemplates sources)
    : RowTask(std::move(info), read_rows),
      fields_(fields),
      labels_(std::move(labels)),
      sources_(std::move(sources)) {}

std::string LabelledTask::AnswerOf(std::string_view output, const TaskExample&,
                                   DataConfig::Templates templates) const {
  return labels_.AnswerOf(output, templates);
}

absl::Status LabelledTask::AddExamples(const ExampleRow& row, const ReadOptions& options,
                                       std::vector<TaskExample>* examples) const {
  TaskExample example;
  ASSIGN_OR_RETURN(example.id, row.Id(fields_.id));
  ASSIGN_OR_RETURN(example.source, sources_.Of(options.templates).Fill(row));
  RETURN_IF_ERROR(SetLabel(row, fields_.label, labels_, options, &example));
  examples->push_back(std::move(example));
  return absl::OkStatus();
}

}  // namespace hypermoe
