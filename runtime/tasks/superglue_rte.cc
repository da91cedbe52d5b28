#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether a text implies another, as SuperGLUE has it.
const Task& SuperGlueRte() {
  static const auto& task = *new LabelledTask(
      {"superglue_rte", "RTE (SuperGLUE)", SuperGlueFiles(), {"accuracy"}}, ReadJsonLines,
      {.id = "idx", .label = "label"}, LabelSet({"entailment", "not_entailment"}),
      {.t5 = {"rte", {{"hypothesis", "hypothesis"}, {"premise", "premise"}}},
       .off = {"superglue-rte", {{"premise", "premise"}, {"hypothesis", "hypothesis"}}}});
  return task;
}

}  // namespace hypermoe
