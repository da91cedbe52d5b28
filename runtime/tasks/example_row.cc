#include "runtime/tasks/example_row.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

using nlohmann::json;

std::string Described(const json& value) {
  if (value.is_string()) return absl::StrCat("'", Printable(value.get<std::string>()), "'");
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  return Printable(value.dump());  // a number, true, false or null
}

std::string FieldNames(const json& object) {
  std::vector<std::string> names;
  for (const auto& field : object.items())
    names.push_back(absl::StrCat("'", Printable(field.key()), "'"));
  return names.empty() ? "none" : absl::StrJoin(names, ", ");
}

}  // namespace

ExampleRow::ExampleRow(std::string place, const json* object, std::string path)
    : place_(std::move(place)), object_(object), path_(std::move(path)) {}

const json* ExampleRow::Find(std::string_view field) const {
  const auto found = object_->find(std::string(field));
  return found == object_->end() ? nullptr : &*found;
}

absl::Status ExampleRow::Bad(std::string_view field, std::string_view expected) const {
  const json* value = Find(field);
  const std::string got =
      value != nullptr ? Described(*value)
                       : absl::StrCat("missing; the fields that are there: ", FieldNames(*object_));
  return DataError(absl::StrCat(Printable(place_), ": field '", path_, std::string(field),
                                "': ", got, "; expected ", std::string(expected)));
}

absl::StatusOr<std::string> ExampleRow::Text(std::string_view field) const {
  const json* value = Find(field);
  if (value == nullptr || !value->is_string()) return Bad(field, "a text");
  return value->get<std::string>();
}

absl::StatusOr<int64_t> ExampleRow::Index(std::string_view field) const {
  const json* value = Find(field);
  if (value == nullptr || !value->is_number_integer() || value->get<int64_t>() < 0)
    return Bad(field, "a whole number from 0");
  return value->get<int64_t>();
}

absl::StatusOr<std::string> ExampleRow::Id(std::string_view field) const {
  const json* value = Find(field);
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_number_integer()) return Bad(field, "a text or a whole number");
  return value->dump();
}

absl::StatusOr<ExampleRow> ExampleRow::Object(std::string_view field) const {
  const json* value = Find(field);
  if (value == nullptr || !value->is_object()) return Bad(field, "an object");
  return ExampleRow(place_, value, absl::StrCat(path_, std::string(field), "."));
}

absl::StatusOr<std::vector<ExampleRow>> ExampleRow::Objects(std::string_view field) const {
  const json* value = Find(field);
  if (value == nullptr || !value->is_array()) return Bad(field, "an array of objects");
  std::vector<ExampleRow> rows;
  for (size_t i = 0; i < value->size(); ++i) {
    const std::string path = absl::StrCat(path_, std::string(field), "[", i, "]");
    if (!(*value)[i].is_object()) {
      return DataError(absl::StrCat(Printable(place_), ": field '", path,
                                    "': ", Described((*value)[i]), "; expected an object"));
    }
    rows.push_back(ExampleRow(place_, &(*value)[i], path + "."));
  }
  return rows;
}

}  // namespace hypermoe
