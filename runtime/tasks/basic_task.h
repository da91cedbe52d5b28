// What the tasks of runtime/tasks have in common.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/task.h"
#include "runtime/tasks/example_file.h"
#include "runtime/tasks/label_set.h"

namespace hypermoe {

// Names that a file of each split may have, the best known ones first.
struct SplitFiles {
  std::vector<std::string> train, validation, test;
};
SplitFiles GlueFiles();
// The full files of SuperGLUE, else those of FewGLUE, which has 32 examples of each task.
SplitFiles SuperGlueFiles();

// Room for every label's word, also where a token is a byte.
TaskDefaults LabelDefaults();

struct TaskInfo {
  std::string_view name, title;
  SplitFiles files;
  std::vector<std::string_view> metrics;
  TaskDefaults defaults = LabelDefaults();
};

class BasicTask : public Task {
 public:
  explicit BasicTask(TaskInfo info) : info_(std::move(info)) {}

  std::string_view name() const override { return info_.name; }
  std::string_view title() const override { return info_.title; }
  TaskDefaults defaults() const override { return info_.defaults; }
  std::vector<std::string_view> metrics() const override { return info_.metrics; }
  std::vector<std::string> FileNames(TaskSplit split) const override;
  // The output as it is.
  std::string AnswerOf(std::string_view output, const TaskExample& example,
                       DataConfig::Templates templates) const override;

 private:
  TaskInfo info_;
};

// How a file is read.
struct ReadOptions {
  DataConfig::Templates templates;
  TaskUse use;
  bool labels_needed;  // or else they are read where they are
};

// A task whose file has rows: each becomes an example, several, or none.
class RowTask : public BasicTask {
 public:
  using ReadRows = absl::Status (*)(const std::string& path, const UseRow& use);
  RowTask(TaskInfo info, ReadRows read_rows) : BasicTask(std::move(info)), read_rows_(read_rows) {}

  absl::StatusOr<std::vector<TaskExample>> ReadFile(const std::string& path,
                                                    DataConfig::Templates templates, TaskUse use,
                                                    bool labels_needed) const override;

 protected:
  virtual absl::Status AddExamples(const ExampleRow& row, const ReadOptions& options,
                                   std::vector<TaskExample>* examples) const = 0;

 private:
  ReadRows read_rows_;
};

// The error that a file has no example; OK if it has.
absl::Status CheckNotEmpty(const std::vector<TaskExample>& examples, const std::string& path);

// Target and reference of an example whose label is in `field`; "<unk>" and none if it is not there
// and need not be.
absl::Status SetLabel(const ExampleRow& row, std::string_view field, const LabelSet& labels,
                      const ReadOptions& options, TaskExample* example);

// What stands for a label that is not known.
inline constexpr std::string_view kUnknownTarget = "<unk>";

}  // namespace hypermoe
