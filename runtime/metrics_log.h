// metrics.jsonl of a run: one JSON object a line, numbers written so that they read back exactly.
// JSON has no NaN and no infinity: they are written as null.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

class MetricsLog {
 public:
  // Opens run_dir/metrics.jsonl for appending, after dropping every line of a step beyond
  // `last_step` and a torn last line (resume: the steps since the checkpoint are done again and
  // must not appear twice). The new content replaces the old by rename. last_step 0 starts an empty
  // file. DataError names the first line that is not an object with a step; the file is then left
  // as it is.
  static absl::StatusOr<std::unique_ptr<MetricsLog>> Open(const std::string& run_dir,
                                                          int64_t last_step);
  virtual ~MetricsLog() = default;
  // Step and kind of the last line that Open has kept; step 0 where there is none.
  struct LastLine {
    int64_t step = 0;
    std::string kind;
  };
  virtual const LastLine& kept() const = 0;
  // The lines of kind "validation" that it has kept.
  virtual const std::vector<nlohmann::json>& kept_validations() const = 0;
  // Appends one line, which must have "kind" and "step", and hands it to the operating system.
  virtual absl::Status Write(const nlohmann::json& line) = 0;
  virtual const std::string& path() const = 0;
};

}  // namespace hypermoe
