// Tasks whose rows are a few texts and a label.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/tasks/basic_task.h"
#include "runtime/tasks/label_set.h"
#include "runtime/tasks/source_template.h"

namespace hypermoe {

class LabelledTask : public RowTask {
 public:
  struct Fields {
    std::string_view id;  // of the row; that field may be missing
    std::string_view label;
  };
  LabelledTask(TaskInfo info, ReadRows read_rows, Fields fields, LabelSet labels,
               SourceTemplates sources);

  std::string AnswerOf(std::string_view output, const TaskExample& example,
                       DataConfig::Templates templates) const override;

 protected:
  absl::Status AddExamples(const ExampleRow& row, const ReadOptions& options,
                           std::vector<TaskExample>* examples) const override;

 private:
  Fields fields_;
  LabelSet labels_;
  SourceTemplates sources_;
};

}  // namespace hypermoe
