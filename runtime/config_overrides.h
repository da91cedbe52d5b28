// Changes to a configuration from the command line: --set PATH=VALUE.
#pragma once

#include <string>

#include "configs/run.pb.h"
#include "runtime/status.h"

namespace hypermoe {

// Applies one "path=value". Text is taken as it stands, '=' and all; a repeated field is replaced
// by the values between commas ("" empties it); everything else is read as in a config file. An
// item of a list of sections (data.train) is the value of the section's first field, or
// FIRST:SECOND; a first value that itself contains ',' or ':' can only be given in a config file.
// The value must be within the field's range.
absl::Status ApplyOverride(const std::string& assignment, RunConfig* config);

}  // namespace hypermoe
