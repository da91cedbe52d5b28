#include "runtime/tasks/summary_task.h"

namespace hypermoe {

// News articles in the sentences that their editors put above them.
const Task& CnnDailyMail() {
  static const auto& task = *new SummaryTask("cnn_dailymail", "CNN/DailyMail");
  return task;
}

}  // namespace hypermoe
