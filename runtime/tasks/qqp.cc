#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether two questions ask the same.
const Task& Qqp() {
  const SourceTemplate source{"qqp", {{"question1", "question1"}, {"question2", "question2"}}};
  static const auto& task =
      *new LabelledTask({"qqp", "QQP", GlueFiles(), {"accuracy", "f1"}}, ReadTsv,
                        {.id = "id", .label = "is_duplicate"},
                        LabelSet({"not_duplicate", "duplicate"}), {.t5 = source, .off = source});
  return task;
}

}  // namespace hypermoe
