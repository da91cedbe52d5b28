// Protobuf text to RunConfig, with errors that say where in the text and which field.
#pragma once

#include <cstddef>
#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

constexpr size_t kMaxConfigBytes = 1 << 20;

// Only what `text` sets is set; every number is within its range. At most kMaxConfigBytes of text
// and 64 levels of nesting. `source` names the text in errors, all of which are ConfigError.
absl::StatusOr<RunConfig> ReadConfigText(const std::string& text, const std::string& source);

}  // namespace hypermoe
