#include "runtime/tasks/label_set.h"

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace hypermoe {

std::string_view Stripped(std::string_view text) {
  const auto stripped = absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size()));
  return {stripped.data(), stripped.size()};
}

std::string LabelSet::Text(int64_t label, DataConfig::Templates templates) const {
  return templates == DataConfig::t5 ? words_.at(label) : absl::StrCat(label);
}

std::string LabelSet::AnswerOf(std::string_view output, DataConfig::Templates templates) const {
  const std::string_view text = templates == DataConfig::t5 ? output : Stripped(output);
  for (int64_t label = 0; label < size(); ++label)
    if (text == Text(label, templates)) return absl::StrCat(label);
  return "-1";
}

absl::StatusOr<int64_t> LabelSet::Read(const ExampleRow& row, std::string_view field) const {
  const nlohmann::json* value = row.Find(field);
  // A boolean is dumped as "true" or "false".
  const std::string text = value == nullptr     ? ""
                           : value->is_string() ? value->get<std::string>()
                                                : value->dump();
  const bool boolean = words_ == std::vector<std::string>{"False", "True"};
  std::vector<std::string> known;
  for (int64_t label = 0; label < size(); ++label) {
    const std::string& word = words_[label];
    if (text == word || text == absl::StrCat(label)) return label;
    if (boolean && text == absl::AsciiStrToLower(word)) return label;
    known.push_back(absl::StrCat(label, " (", word, ")"));
  }
  return row.Bad(field, absl::StrCat("a label: ", absl::StrJoin(known, " or ")));
}

}  // namespace hypermoe
