// A row of a file of examples, the fields of which are checked as they are read.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

// Errors are DataError "PLACE: field 'NAME': what is there; expected ...".
class ExampleRow {
 public:
  // `place` is "FILE:LINE" in errors; `object` must outlive the row.
  ExampleRow(std::string place, const nlohmann::json* object)
      : ExampleRow(std::move(place), object, "") {}

  // nullptr if there is no such field.
  const nlohmann::json* Find(std::string_view field) const;
  // May be empty.
  absl::StatusOr<std::string> Text(std::string_view field) const;
  // A whole number, 0 or more.
  absl::StatusOr<int64_t> Index(std::string_view field) const;
  // A text or a whole number, as text; "" if there is no such field.
  absl::StatusOr<std::string> Id(std::string_view field) const;
  absl::StatusOr<ExampleRow> Object(std::string_view field) const;
  absl::StatusOr<std::vector<ExampleRow>> Objects(std::string_view field) const;

  // The error that a field is not what was expected.
  absl::Status Bad(std::string_view field, std::string_view expected) const;

 private:
  ExampleRow(std::string place, const nlohmann::json* object, std::string path);

  std::string place_;
  const nlohmann::json* object_;
  std::string path_;  // of the row within the outermost object: "" or "passage.questions[2]."
};

}  // namespace hypermoe
