#include "runtime/config_loader.h"

#include <google/protobuf/text_format.h>

#include <vector>

#include "absl/strings/match.h"
#include "runtime/config_fields.h"
#include "runtime/config_overrides.h"
#include "runtime/config_text.h"
#include "runtime/file_util.h"
#include "runtime/hashed_file.h"
#include "runtime/input_file.h"

namespace hypermoe {
namespace {

// The fields that a preset gives values.
HyperConfig FieldsOf(HyperConfig::Preset preset) {
  HyperConfig fields;
  if (preset == HyperConfig::paper) fields.set_lin_bias(false);
  if (preset == HyperConfig::official_v1) {
    fields.set_agg(HyperConfig::sum);
    fields.set_gen_bias(true);
    fields.set_share(HyperConfig::stack);
    fields.set_init(HyperConfig::off_small);
  }
  return fields;
}

// A preset that the command line asks for is stronger than what a file says of its fields, which in
// a run's own configuration are all there.
void ClearFieldsOfPresets(HyperConfig* hyper) {
  for (const HyperConfig::Preset preset : {HyperConfig::paper, HyperConfig::official_v1}) {
    const HyperConfig fields = FieldsOf(preset);
    std::vector<const google::protobuf::FieldDescriptor*> set;
    fields.GetReflection()->ListFields(fields, &set);
    for (const auto* field : set) hyper->GetReflection()->ClearField(hyper, field);
  }
}

// Gives the fields of the preset that are absent its values.
void ApplyPreset(HyperConfig* hyper) {
  HyperConfig complete = FieldsOf(hyper->preset());
  complete.MergeFrom(*hyper);
  *hyper = complete;
}

}  // namespace

absl::StatusOr<RunConfig> ReadGivenConfig(const std::string& path,
                                          const std::vector<std::string>& overrides) {
  RunConfig config;
  if (!path.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxConfigBytes + 1));
    ASSIGN_OR_RETURN(config, ReadConfigText(text, path));
  }
  for (const std::string& assignment : overrides) {
    if (absl::StartsWith(assignment, "hyper.preset=")) ClearFieldsOfPresets(config.mutable_hyper());
  }
  for (const std::string& assignment : overrides)
    RETURN_IF_ERROR(ApplyOverride(assignment, &config));
  if (config.has_hyper()) ApplyPreset(config.mutable_hyper());
  return config;
}

absl::StatusOr<RunConfig> LoadConfig(const std::string& path,
                                     const std::vector<std::string>& overrides) {
  ASSIGN_OR_RETURN(RunConfig config, ReadGivenConfig(path, overrides));
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

absl::Status WriteRunConfig(const std::string& run_dir, const RunConfig& config) {
  RETURN_IF_ERROR(CreateFolders(run_dir));
  return WriteFileDurably(run_dir + "/config.textproto", ConfigText(config));
}

}  // namespace hypermoe
