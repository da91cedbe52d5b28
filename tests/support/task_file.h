// Examples of a task from the text of a file.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/task.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {

inline absl::StatusOr<std::vector<TaskExample>> ReadTaskText(
    const std::string& task, const std::string& text,
    DataConfig::Templates templates = DataConfig::t5, TaskUse use = TaskUse::kEvaluation,
    bool labels_needed = true) {
  const TemporaryFolder folder;
  return FindTask(task)->ReadFile(folder.Write("file", text), templates, use, labels_needed);
}

// JSON that a test has over several lines, as the one line of a file.
inline std::string OneLine(std::string json) {
  for (char& c : json)
    if (c == '\n') c = ' ';
  return json;
}

// Of a text that is in order.
inline std::vector<TaskExample> TaskExamples(const std::string& task, const std::string& text,
                                             DataConfig::Templates templates = DataConfig::t5,
                                             TaskUse use = TaskUse::kEvaluation,
                                             bool labels_needed = true) {
  const auto examples = ReadTaskText(task, text, templates, use, labels_needed);
  EXPECT_TRUE(examples.ok()) << examples.status();
  return examples.ok() ? *examples : std::vector<TaskExample>{};
}

}  // namespace hypermoe
