#include "runtime/parameter_patterns.h"

#include <c10/util/accumulate.h>
#include <fnmatch.h>
#include <google/protobuf/repeated_field.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/model_folder_layout.h"
#include "runtime/nearest_name.h"

namespace hypermoe {
namespace {

using Patterns = google::protobuf::RepeatedPtrField<std::string>;

bool Matches(const std::string& pattern, const Parameter& parameter) {
  return fnmatch(pattern.c_str(), parameter.name.c_str(), 0) == 0;
}

// The parameter that a tensor belongs to, by its name: an expert's has "{e}" in place of its
// number. Name and group alone.
Parameter ParameterOf(const std::string& tensor) {
  constexpr char kExpert[] = ".expert_";
  Parameter parameter;
  parameter.name = tensor;
  const size_t expert = tensor.find(kExpert);
  if (tensor.find("hypermoe.") == 0) {
    parameter.group = ParameterGroup::kHyper;
  } else if (expert != std::string::npos) {
    parameter.group = ParameterGroup::kExpert;
    const size_t number = expert + sizeof(kExpert) - 1;
    parameter.name.replace(number, tensor.find('.', number) - number, "{e}");
  }
  return parameter;
}

bool MatchesAny(const Patterns& patterns, const Parameter& parameter) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return Matches(pattern, parameter); });
}

// `field`: where the patterns stand.
absl::Status CheckAllMatch(const std::string& field, const Patterns& patterns,
                           const std::vector<Parameter>& parameters) {
  for (const std::string& pattern : patterns) {
    const auto matches = [&](const Parameter& parameter) { return Matches(pattern, parameter); };
    if (std::any_of(parameters.begin(), parameters.end(), matches)) continue;
    std::vector<std::string> names;
    for (const Parameter& parameter : parameters) names.push_back(parameter.name);
    return ConfigError(absl::StrCat(field, " names '", Printable(pattern),
                                    "', which matches no parameter: the nearest one is '",
                                    NearestName(pattern, names),
                                    "', patterns match whole names, and * stands for any text"));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Parameter>& ApplyPatterns(const RunConfig& config, std::vector<Parameter>& parameters) {
  for (Parameter& parameter : parameters) {
    if (MatchesAny(config.optimizer().no_decay(), parameter)) parameter.weight_decay = false;
    if (!MatchesAny(config.train().freeze(), parameter)) continue;
    parameter.frozen = true;
    if (parameter.value.defined()) parameter.value.set_requires_grad(false);
  }
  return parameters;
}

absl::Status CheckPatterns(const RunConfig& config, const std::vector<Parameter>& parameters) {
  RETURN_IF_ERROR(CheckAllMatch("optimizer.no_decay", config.optimizer().no_decay(), parameters));
  const Patterns& freeze = config.train().freeze();
  RETURN_IF_ERROR(CheckAllMatch("train.freeze", freeze, parameters));
  const auto frozen = [&](const Parameter& parameter) { return MatchesAny(freeze, parameter); };
  if (!std::all_of(parameters.begin(), parameters.end(), frozen)) return absl::OkStatus();
  return ConfigError(
      "train.freeze matches every parameter of the model, so there is nothing to train: name "
      "fewer");
}

void ForEachTrainedTensor(const RunConfig& config,
                          const std::function<void(ParameterGroup, at::IntArrayRef)>& visit) {
  ForEachFolderTensor(config, [&](const std::string& name, at::IntArrayRef shape) {
    const Parameter parameter = ParameterOf(name);
    if (!MatchesAny(config.train().freeze(), parameter)) visit(parameter.group, shape);
  });
}

ParameterCounts CountFrozen(const RunConfig& config) {
  ParameterCounts counts;
  if (config.train().freeze().empty()) return counts;
  const auto add = [&](const std::string& name, at::IntArrayRef shape) {
    const Parameter parameter = ParameterOf(name);
    if (!MatchesAny(config.train().freeze(), parameter)) return;
    int64_t& count = parameter.group == ParameterGroup::kExpert  ? counts.experts
                     : parameter.group == ParameterGroup::kHyper ? counts.hyper
                                                                 : counts.dense;
    count += c10::multiply_integers(shape);
  };
  ForEachFolderTensor(config, add);
  return counts;
}

}  // namespace hypermoe
