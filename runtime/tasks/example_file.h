// Files of examples: their text, their lines, and their rows as tab-separated values or JSON lines.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/file_util.h"
#include "runtime/status.h"
#include "runtime/tasks/example_row.h"

namespace hypermoe {

// Well-formed UTF-8 (DataError otherwise), a byte order mark at the beginning left out.
struct ExampleText {
  std::shared_ptr<const MappedFile> file;
  std::string_view text;  // of `file`
};
absl::StatusOr<ExampleText> ReadExampleText(const std::string& path);

// What to do with a row; an error ends the reading.
using UseRow = std::function<absl::Status(const ExampleRow& row)>;

// JSON lines: one object a line; blank lines are none.
absl::Status ReadJsonLines(const std::string& path, const UseRow& use);

// Tab-separated values as GLUE has them: a line a row, no quoting, so that a double quote is text.
// All fields are texts. The first line names the columns.
absl::Status ReadTsv(const std::string& path, const UseRow& use);
// Of a file with these columns and no header; one whose first line begins with "index" has one.
absl::Status ReadTsvWithoutHeader(const std::string& path, const std::vector<std::string>& columns,
                                  const UseRow& use);

}  // namespace hypermoe
