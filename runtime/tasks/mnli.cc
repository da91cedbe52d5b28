#include "runtime/tasks/labelled_task.h"

namespace hypermoe {

// Whether a premise implies a hypothesis. Evaluated on the genres that the training set has.
const Task& Mnli() {
  static const auto& task = *new LabelledTask(
      {"mnli", "MNLI", {{"train.tsv"}, {"dev_matched.tsv"}, {"test_matched.tsv"}}, {"accuracy"}},
      ReadTsv, {.id = "index", .label = "gold_label"},
      LabelSet({"entailment", "neutral", "contradiction"}),
      {.t5 = {"mnli", {{"hypothesis", "sentence2"}, {"premise", "sentence1"}}},
       .off = {"mnli", {{"premise", "sentence1"}, {"hypothesis", "sentence2"}}}});
  return task;
}

}  // namespace hypermoe
