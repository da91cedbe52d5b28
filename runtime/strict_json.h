// JSON from files that strangers have written.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "runtime/status.h"

namespace hypermoe {

// The object that `text` holds. DataError, naming `path` and the place, for everything else: text
// that is not JSON (NaN, Infinity, numbers beyond a double, comments, ill-formed UTF-8, a byte
// order mark), a key that stands twice in one object, nesting deeper than 64.
absl::StatusOr<nlohmann::json> ParseStrictJson(const std::string& path, std::string_view text);

}  // namespace hypermoe
