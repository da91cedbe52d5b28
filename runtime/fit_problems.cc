#include "runtime/fit_problems.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/file_util.h"

namespace hypermoe {

bool FitProblems::IsShown() { return ++count_ <= max_shown_; }

void FitProblems::Add(const std::string& problem) {
  if (IsShown()) shown_.push_back(problem);
}

void FitProblems::Missing(const std::string& name) {
  if (IsShown()) shown_.push_back(absl::StrCat("missing tensor '", Printable(name), "'"));
}

void FitProblems::Unexpected(const std::string& name) {
  if (IsShown()) {
    shown_.push_back(
        absl::StrCat("unexpected tensor '", Printable(name), "', which the model does not have"));
  }
}

void FitProblems::Misfit(const std::string& name, const std::string& found,
                         const std::string& expected) {
  if (IsShown()) {
    shown_.push_back(absl::StrCat("tensor '", Printable(name), "' is ", Printable(found),
                                  ", expected ", expected));
  }
}

absl::Status FitProblems::ToStatus(const std::string& what) const {
  if (count_ == 0) return absl::OkStatus();
  std::string message = absl::StrCat(what, ": ", absl::StrJoin(shown_, "; "));
  if (count_ > shown_.size()) absl::StrAppend(&message, "; and ", count_ - shown_.size(), " more");
  return DataError(message);
}

std::string ShapeText(c10::IntArrayRef shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
}

}  // namespace hypermoe
