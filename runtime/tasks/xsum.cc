#include "runtime/tasks/summary_task.h"

namespace hypermoe {

// BBC articles, each in one sentence.
const Task& XSum() {
  static const auto& task = *new SummaryTask("xsum", "XSum");
  return task;
}

}  // namespace hypermoe
