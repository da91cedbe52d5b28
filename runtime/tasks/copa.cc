#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Which of two choices is the cause, or the effect, of a premise. The paper's code does not say
// which of the two is asked for.
const Task& Copa() {
  static const auto& task = *new LabelledTask(
      {"copa", "COPA", SuperGlueFiles(), {"accuracy"}}, ReadJsonLines,
      {.id = "idx", .label = "label"}, LabelSet({"choice1", "choice2"}),
      {.t5 = {"copa",
              {{"choice1", "choice1"},
               {"choice2", "choice2"},
               {"premise", "premise"},
               {"question", "question"}}},
       .off = {"superglue-copa",
               {{"premise", "premise"}, {"choice1", "choice1"}, {"choice2", "choice2"}}}});
  return task;
}

}  // namespace hypermoe
