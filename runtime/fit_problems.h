// Everything that is wrong with the tensors of a file set, brought together into one error.
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

// How many are shown where all should be.
constexpr size_t kMostFitProblems = 1000;

class FitProblems {
 public:
  // Lists the first `max_shown`, and how many more there are.
  explicit FitProblems(size_t max_shown) : max_shown_(max_shown) {}

  void Add(const std::string& problem);
  void Missing(const std::string& name);
  void Unexpected(const std::string& name);
  // `found` and `expected` as "F32[2,3]" or "[2,3]".
  void Misfit(const std::string& name, const std::string& found, const std::string& expected);

  // OK without problems; otherwise DataError "`what`: first; second; ...".
  absl::Status ToStatus(const std::string& what) const;

 private:
  // Counts a problem; whether its text is wanted. There may be millions.
  bool IsShown();

  size_t max_shown_;
  size_t count_ = 0;
  std::vector<std::string> shown_;
};

// "[2,3]"
std::string ShapeText(c10::IntArrayRef shape);

}  // namespace hypermoe
