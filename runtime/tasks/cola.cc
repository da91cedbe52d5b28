#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether a sentence is English: only the test file has a header.
const Task& Cola() {
  const SourceTemplate source{"cola", {{"sentence", "sentence"}}};
  static const auto& task = *new LabelledTask(
      {"cola", "CoLA", GlueFiles(), {"matthews"}},
      [](const std::string& path, const UseRow& use) {
        return ReadTsvWithoutHeader(path, {"source", "label", "mark", "sentence"}, use);
      },
      {.id = "index", .label = "label"}, LabelSet({"unacceptable", "acceptable"}),
      {.t5 = source, .off = source});
  return task;
}

}  // namespace hypermoe
