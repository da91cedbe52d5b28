#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether two sentences say the same.
const Task& Mrpc() {
  const SourceTemplate source{"mrpc", {{"sentence1", "#1 String"}, {"sentence2", "#2 String"}}};
  static const auto& task =
      *new LabelledTask({"mrpc", "MRPC", GlueFiles(), {"accuracy", "f1"}}, ReadTsv,
                        {.id = "index", .label = "Quality"},
                        LabelSet({"not_equivalent", "equivalent"}), {.t5 = source, .off = source});
  return task;
}

}  // namespace hypermoe
