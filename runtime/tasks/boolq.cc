#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Questions to be answered with yes or no from a passage.
const Task& BoolQ() {
  static const auto& task = *new LabelledTask(
      {"boolq", "BoolQ", SuperGlueFiles(), {"accuracy"}}, ReadJsonLines,
      {.id = "idx", .label = "label"}, LabelSet({"False", "True"}),
      {.t5 = {"boolq", {{"passage", "passage"}, {"question", "question"}}},
       .off = {"superglue-boolq", {{"question", "question"}, {"passage", "passage"}}}});
  return task;
}

}  // namespace hypermoe
