#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether a sentence of a film review is in favour.
const Task& Sst2() {
  const SourceTemplate source{"sst2", {{"sentence", "sentence"}}};
  static const auto& task = *new LabelledTask(
      {"sst2", "SST-2", GlueFiles(), {"accuracy"}}, ReadTsv, {.id = "index", .label = "label"},
      LabelSet({"negative", "positive"}), {.t5 = source, .off = source});
  return task;
}

}  // namespace hypermoe
