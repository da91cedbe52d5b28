#include "runtime/task.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/file_util.h"
#include "runtime/nearest_name.h"

// The tasks in the order of the paper's tables. A task is a file of runtime/tasks, which defines
// `const Task& NAME()`, and its line here.
#define HYPERMOE_TASKS(TASK) \
  TASK(Cola)                 \
  TASK(Sst2)                 \
  TASK(StsB)                 \
  TASK(Mrpc)                 \
  TASK(Qqp)                  \
  TASK(Mnli)                 \
  TASK(Qnli)                 \
  TASK(Rte)                  \
  TASK(BoolQ)                \
  TASK(Cb)                   \
  TASK(MultiRc)              \
  TASK(Copa)                 \
  TASK(Record)               \
  TASK(SuperGlueRte)         \
  TASK(Wic)                  \
  TASK(Wsc)                  \
  TASK(XSum)                 \
  TASK(CnnDailyMail)         \
  TASK(Squad)                \
  TASK(Wikitext)

namespace hypermoe {

#define DECLARE_TASK(name) const Task& name();
HYPERMOE_TASKS(DECLARE_TASK)
#undef DECLARE_TASK

namespace {

const char* SplitName(TaskSplit split) {
  switch (split) {
    case TaskSplit::kTrain:
      return "training";
    case TaskSplit::kValidation:
      return "validation";
    case TaskSplit::kTest:
      return "testing";
  }
  return "";
}

}  // namespace

const std::vector<const Task*>& AllTasks() {
#define ADDRESS_OF_TASK(name) &name(),
  static const auto& tasks = *new std::vector<const Task*>{HYPERMOE_TASKS(ADDRESS_OF_TASK)};
#undef ADDRESS_OF_TASK
  return tasks;
}

const Task* FindTask(std::string_view name) {
  for (const Task* task : AllTasks())
    if (task->name() == name) return task;
  return nullptr;
}

absl::StatusOr<const Task*> TaskNamed(std::string_view name) {
  if (const Task* task = FindTask(name)) return task;
  std::vector<std::string> names;
  for (const Task* task : AllTasks()) names.emplace_back(task->name());
  return UsageError(absl::StrCat("there is no task '", Printable(std::string(name)),
                                 "'; the nearest is '", NearestName(std::string(name), names),
                                 "', all are: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<std::string> TaskFile(const Task& task, const std::string& folder, TaskSplit split) {
  const std::vector<std::string> names = task.FileNames(split);
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder, "/", name);
    std::error_code error;
    if (std::filesystem::exists(path, error)) return path;
  }
  return DataError(absl::StrCat(Printable(folder), ": no file of ", std::string(task.title()),
                                " for ", SplitName(split), "; expected ",
                                absl::StrJoin(names, " or "), " in this folder"));
}

}  // namespace hypermoe
