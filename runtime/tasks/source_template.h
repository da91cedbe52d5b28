// Sources of the form "PREFIX NAME: text NAME: text ...".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/run.pb.h"
#include "runtime/status.h"
#include "runtime/tasks/example_row.h"

namespace hypermoe {

struct TemplateField {
  std::string_view name;     // in the source
  std::string_view in_file;  // the row's field that has the text
};

struct SourceTemplate {
  std::string_view prefix;
  std::vector<TemplateField> fields;

  absl::StatusOr<std::string> Fill(const ExampleRow& row) const;
};

// Of a task, in each family.
struct SourceTemplates {
  SourceTemplate t5, off;

  const SourceTemplate& Of(DataConfig::Templates templates) const {
    return templates == DataConfig::t5 ? t5 : off;
  }
};

}  // namespace hypermoe
