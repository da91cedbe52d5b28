#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether a text implies another, as GLUE has it.
const Task& Rte() {
  const SourceTemplate source{"rte", {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}}};
  static const auto& task = *new LabelledTask(
      {"rte", "RTE", GlueFiles(), {"accuracy"}}, ReadTsv, {.id = "index", .label = "label"},
      LabelSet({"entailment", "not_entailment"}), {.t5 = source, .off = source});
  return task;
}

}  // namespace hypermoe
