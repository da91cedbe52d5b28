#include "runtime/tasks/labelled_task.h"

namespace hypermoe {
namespace {

SourceTemplate Source(std::string_view prefix) {
  return {prefix, {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}, {"word", "word"}}};
}

}  // namespace

// Whether a word means the same in two sentences; where in them it stands is not told.
const Task& Wic() {
  static const auto& task =
      *new LabelledTask({"wic", "WiC", SuperGlueFiles(), {"accuracy"}}, ReadJsonLines,
                        {.id = "idx", .label = "label"}, LabelSet({"False", "True"}),
                        {.t5 = Source("wic"), .off = Source("superglue-wic")});
  return task;
}

}  // namespace hypermoe
