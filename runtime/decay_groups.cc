#include "runtime/decay_groups.h"

#include <fnmatch.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/nearest_name.h"

namespace hypermoe {
namespace {

bool Matches(const std::string& pattern, const Parameter& parameter) {
  return fnmatch(pattern.c_str(), parameter.name.c_str(), 0) == 0;
}

}  // namespace

std::vector<Parameter>& ApplyNoDecay(const OptimizerConfig& config,
                                     std::vector<Parameter>& parameters) {
  for (Parameter& parameter : parameters) {
    for (const std::string& pattern : config.no_decay()) {
      if (Matches(pattern, parameter)) parameter.weight_decay = false;
    }
  }
  return parameters;
}

absl::Status CheckNoDecay(const OptimizerConfig& config, const std::vector<Parameter>& parameters) {
  for (const std::string& pattern : config.no_decay()) {
    const auto matches = [&](const Parameter& parameter) { return Matches(pattern, parameter); };
    if (std::any_of(parameters.begin(), parameters.end(), matches)) continue;
    std::vector<std::string> names;
    for (const Parameter& parameter : parameters) names.push_back(parameter.name);
    return ConfigError(absl::StrCat("optimizer.no_decay names '", Printable(pattern),
                                    "', which matches no parameter: the nearest one is '",
                                    NearestName(pattern, names),
                                    "', patterns match whole names, and * stands for any text"));
  }
  return absl::OkStatus();
}

}  // namespace hypermoe
