#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether a sentence answers a question.
const Task& Qnli() {
  const SourceTemplate source{"qnli", {{"question", "question"}, {"sentence", "sentence"}}};
  static const auto& task = *new LabelledTask(
      {"qnli", "QNLI", GlueFiles(), {"accuracy"}}, ReadTsv, {.id = "index", .label = "label"},
      LabelSet({"entailment", "not_entailment"}), {.t5 = source, .off = source});
  return task;
}

}  // namespace hypermoe
