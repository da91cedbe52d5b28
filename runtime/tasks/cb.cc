#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// How far the writer of a premise is committed to a hypothesis.
const Task& Cb() {
  static const auto& task = *new LabelledTask(
      {"cb", "CB", SuperGlueFiles(), {"accuracy", "macro_f1"}}, ReadJsonLines,
      {.id = "idx", .label = "label"}, LabelSet({"entailment", "contradiction", "neutral"}),
      {.t5 = {"cb", {{"hypothesis", "hypothesis"}, {"premise", "premise"}}},
       .off = {"superglue-cb", {{"premise", "premise"}, {"hypothesis", "hypothesis"}}}});
  return task;
}

}  // namespace hypermoe
