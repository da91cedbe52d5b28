#include "runtime/config_loader.h"

#include <google/protobuf/text_format.h>

#include "runtime/config_fields.h"
#include "runtime/config_overrides.h"
#include "runtime/config_text.h"
#include "runtime/input_file.h"

namespace hypermoe {

absl::StatusOr<RunConfig> LoadConfig(const std::string& path,
                                     const std::vector<std::string>& overrides) {
  RunConfig config;
  if (!path.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxConfigBytes + 1));
    ASSIGN_OR_RETURN(config, ReadConfigText(text, path));
  }
  for (const std::string& assignment : overrides)
    RETURN_IF_ERROR(ApplyOverride(assignment, &config));
  FillDefaults(&config);
  return config;
}

std::string ConfigText(const RunConfig& config) {
  RunConfig complete = config;
  FillDefaults(&complete);
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  printer.PrintToString(complete, &text);
  return text;
}

absl::StatusOr<RunConfig> ParseConfigText(const std::string& text, const std::string& source) {
  ASSIGN_OR_RETURN(RunConfig config, ReadConfigText(text, source));
  FillDefaults(&config);
  return config;
}

}  // namespace hypermoe
