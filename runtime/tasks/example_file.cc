#include "runtime/tasks/example_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/strict_json.h"
#include "runtime/text_reader.h"
#include "runtime/utf8.h"

namespace hypermoe {
namespace {

using nlohmann::json;

// `line` is without the "\n" or "\r\n" that ends it.
using UseLine = std::function<absl::Status(const std::string& place, std::string_view line)>;

// A lone "\r" ends no line: questions of QQP hold some.
absl::Status ForEachLine(const std::string& path, const UseLine& use) {
  ASSIGN_OR_RETURN(const ExampleText file, ReadExampleText(path));
  std::string_view rest = file.text;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    RETURN_IF_ERROR(use(absl::StrCat(path, ":", number), line));
  }
  return absl::OkStatus();
}

std::vector<std::string> Columns(std::string_view line) {
  return absl::StrSplit(absl::string_view(line.data(), line.size()), '\t');
}

// Reads rows, the first of which is the header unless `columns` are given.
class TsvRows {
 public:
  TsvRows(std::vector<std::string> columns, const UseRow& use)
      : columns_(std::move(columns)), use_(use) {}

  absl::Status Line(const std::string& place, std::string_view line) {
    std::vector<std::string> values = Columns(line);
    if (std::exchange(first_, false) && (columns_.empty() || values[0] == "index"))
      return Header(place, std::move(values));
    if (values.size() != columns_.size()) {
      return DataError(absl::StrCat(Printable(place), ": ", values.size(), " columns; expected ",
                                    columns_.size(), ", ", Printable(absl::StrJoin(columns_, ", ")),
                                    ", with one tab between two"));
    }
    json row = json::object();
    for (size_t i = 0; i < values.size(); ++i) row[columns_[i]] = std::move(values[i]);
    return use_(ExampleRow(place, &row));
  }

 private:
  absl::Status Header(const std::string& place, std::vector<std::string> names) {
    columns_ = std::move(names);
    std::set<std::string> seen;
    for (const std::string& name : columns_) {
      if (!seen.insert(name).second) {
        return DataError(absl::StrCat(Printable(place), ": the header has the column '",
                                      Printable(name), "' twice; expected different names"));
      }
    }
    return absl::OkStatus();
  }

  std::vector<std::string> columns_;
  const UseRow& use_;
  bool first_ = true;
};

}  // namespace

absl::StatusOr<ExampleText> ReadExampleText(const std::string& path) {
  ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  std::string_view text(file->data(), file->size());
  if (const size_t valid = ValidUtf8Prefix(text); valid < text.size()) {
    const std::string_view before = text.substr(0, valid);
    const auto lines = std::count(before.begin(), before.end(), '\n');
    const size_t column = valid - (before.rfind('\n') + 1);  // npos + 1 is 0
    return DataError(absl::StrCat(Printable(path), ":", lines + 1, ":", column + 1, ": ",
                                  BadUtf8Text(text, valid), "; expected UTF-8"));
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  return ExampleText{std::move(file), text};
}

absl::Status ReadJsonLines(const std::string& path, const UseRow& use) {
  return ForEachLine(path, [&](const std::string& place, std::string_view line) -> absl::Status {
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) return absl::OkStatus();
    ASSIGN_OR_RETURN(const json object, ParseStrictJson(place, line));
    return use(ExampleRow(place, &object));
  });
}

absl::Status ReadTsv(const std::string& path, const UseRow& use) {
  return ReadTsvWithoutHeader(path, {}, use);
}

absl::Status ReadTsvWithoutHeader(const std::string& path, const std::vector<std::string>& columns,
                                  const UseRow& use) {
  TsvRows rows(columns, use);
  return ForEachLine(path, [&](const std::string& place, std::string_view line) {
    return rows.Line(place, line);
  });
}

}  // namespace hypermoe
