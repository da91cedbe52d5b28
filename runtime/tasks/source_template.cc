#include "runtime/tasks/source_template.h"

#include "absl/strings/str_cat.h"

namespace hypermoe {

absl::StatusOr<std::string> SourceTemplate::Fill(const ExampleRow& row) const {
  std::string source(prefix);
  for (const TemplateField& field : fields) {
    ASSIGN_OR_RETURN(const std::string text, row.Text(field.in_file));
    absl::StrAppend(&source, " ", std::string(field.name), ": ", text);
  }
  return source;
}

}  // namespace hypermoe
