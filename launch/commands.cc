#include "launch/commands.h"

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/distributed_init.h"
#include "runtime/agreement.h"
#include "runtime/config_loader.h"
#include "runtime/task.h"

namespace hypermoe {

void AddSetOption(CLI::App& app, std::vector<std::string>* overrides, const std::string& help) {
  // One value for each --set, so that what follows is not swallowed.
  app.add_option("--set", *overrides, help)->type_name("PATH=VALUE")->allow_extra_args(false);
}

void AddTaskOptions(CLI::App& app, std::string* task, std::string* folder) {
  std::vector<std::string> names;
  for (const Task* known : AllTasks()) names.emplace_back(known->name());
  app.add_option("--task", *task, absl::StrCat("One of ", absl::StrJoin(names, ", ")))
      ->type_name("TASK");
  app.add_option("--data", *folder, "Folder of the task's files, as they are published")
      ->type_name("DIR");
}

CLI::Validator Within(double min, double max) {
  const auto check = [min, max](std::string& text) {
    double value = 0;
    if (absl::SimpleAtod(text, &value) && value >= min && value <= max) return std::string();
    return absl::StrCat("'", text, "' is not a number from ", min, " to ", max);
  };
  return CLI::Validator(check, "", "within");
}

int UseThreads(int configured) {
  const int threads = configured > 0 ? configured : AvailableThreads();
  at::set_num_threads(threads);
  return threads;
}

absl::Status CheckExpertDegree(int degree, int world_size) {
  if (degree == 0 || world_size % degree == 0) return absl::OkStatus();
  std::vector<int> divisors;
  for (int divisor = 1; divisor <= world_size; ++divisor) {
    if (world_size % divisor == 0) divisors.push_back(divisor);
  }
  return ConfigError(absl::StrCat(
      "mesh.expert_parallel (", degree, ") must divide the number of ranks (", world_size,
      "): set it to one of ", absl::StrJoin(divisors, ", "), ", or start another number of ranks"));
}

const std::vector<std::string>& ComputingFields() {
  static const auto* const fields = new std::vector<std::string>{
      "mesh.expert_parallel", "mesh.device", "mesh.gpu_transport", "runtime.dtype"};
  return *fields;
}

absl::StatusOr<LayoutOverrides> ReadLayoutOverrides(const std::vector<std::string>& overrides,
                                                    const std::vector<std::string>& fields,
                                                    int world_size) {
  bool dtype_given = false;
  for (const std::string& assignment : overrides) {
    const std::string field = assignment.substr(0, assignment.find('='));
    if (std::find(fields.begin(), fields.end(), field) == fields.end()) {
      return UsageError(absl::StrCat("--set ", assignment, ": a trained model is given ",
                                     absl::StrJoin(fields, ", "),
                                     " only; everything else stands in its checkpoint"));
    }
    dtype_given = dtype_given || field == "runtime.dtype";
  }
  ASSIGN_OR_RETURN(const RunConfig config, LoadConfig("", overrides));
  RETURN_IF_ERROR(CheckExpertDegree(config.mesh().expert_parallel(), world_size));
  LayoutOverrides result;
  result.mesh = config.mesh();
  if (dtype_given) result.dtype = RuntimeConfig::Dtype_Name(config.runtime().dtype());
  return result;
}

absl::Status WriteStdout(const std::string& text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) {
    return absl::OkStatus();
  }
  return IoError(
      absl::StrCat("could not write the result to standard output: ", std::strerror(errno)));
}

absl::Status WriteResult(const std::string& text, Communicator& world) {
  return Agree(world, world.rank() == 0 ? WriteStdout(text) : absl::OkStatus());
}

}  // namespace hypermoe
