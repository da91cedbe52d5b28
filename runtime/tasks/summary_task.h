// Tasks of writing the summary of a document.
#pragma once

#include "runtime/tasks/basic_task.h"

namespace hypermoe {

// JSON lines with the fields `document` and `summary`, or `article` and `highlights`.
class SummaryTask : public RowTask {
 public:
  SummaryTask(std::string_view name, std::string_view title);

 protected:
  absl::Status AddExamples(const ExampleRow& row, const ReadOptions& options,
                           std::vector<TaskExample>* examples) const override;
};

}  // namespace hypermoe
