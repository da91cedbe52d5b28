#include "runtime/config_loader.h"

#include <google/protobuf/text_format.h>

#include "runtime/config_fields.h"
#include "runtime/config_overrides.h"
#include "runtime/config_text.h"
#include "runtime/input_file.h"

namespace hypermoe {
namespace {

// Gives the fields of the preset that are absent its values. In a complete configuration, as runs
// write it, none is.
void ApplyPreset(HyperConfig* hyper) {
  HyperConfig preset;
  switch (hyper->preset()) {
    case HyperConfig::defaults:
      return;
    case HyperConfig::paper:
      preset.set_lin_bias(false);
      break;
    case HyperConfig::official_v1:
      preset.set_agg(HyperConfig::sum);
      preset.set_gen_bias(true);
      preset.set_share(HyperConfig::stack);
      preset.set_init(HyperConfig::off_small);
      break;
  }
  preset.MergeFrom(*hyper);
  *hyper = preset;
}

}  // namespace

absl::StatusOr<RunConfig> LoadConfig(const std::string& path,
                                     const std::vector<std::string>& overrides) {
  RunConfig config;
  if (!path.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxConfigBytes + 1));
    ASSIGN_OR_RETURN(config, ReadConfigText(text, path));
  }
  for (const std::string& assignment : overrides)
    RETURN_IF_ERROR(ApplyOverride(assignment, &config));
  if (config.has_hyper()) ApplyPreset(config.mutable_hyper());
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
