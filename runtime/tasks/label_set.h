// The labels of a task, numbered from 0: words in T5's templates, their numbers in those of the
// paper's code.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/status.h"
#include "runtime/tasks/example_row.h"

namespace hypermoe {

class LabelSet {
 public:
  explicit LabelSet(std::vector<std::string> words) : words_(std::move(words)) {}

  int64_t size() const { return static_cast<int64_t>(words_.size()); }
  // What the model is to write.
  std::string Text(int64_t label, DataConfig::Templates templates) const;
  // The number, as text, of the label that `output` is the text of; "-1" for none. That of the
  // paper's code leaves space at both ends out of account, T5's does not.
  std::string AnswerOf(std::string_view output, DataConfig::Templates templates) const;
  // The label of a row: its word, its number, or, with the words False and True, a boolean of JSON
  // or its name.
  absl::StatusOr<int64_t> Read(const ExampleRow& row, std::string_view field) const;

 private:
  std::vector<std::string> words_;
};

// `text` without white space (ASCII) at its ends.
std::string_view Stripped(std::string_view text);

}  // namespace hypermoe
