// A file of short texts, each of which is worked on by itself.
#pragma once

#include <string>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

// Of NAME.jsonl the field `text` of each line's object (blank lines are none), of any other file
// its lines (blank ones too), without what ends them. Malformed text is an error
// (text_reader.h), as is a file without a text.
absl::StatusOr<std::vector<std::string>> ReadTexts(const std::string& path);

}  // namespace hypermoe
