#include "tools/benchmark.h"

#include <ATen/Version.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/build_identity.h"
#include "launch/commands.h"
#include "launch/distributed_init.h"
#include "launch/gpus.h"

namespace hypermoe {
namespace {

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (absl::StartsWith(line, "model name") && colon != std::string::npos) {
      return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
  }
  return "unknown";
}

double MemoryGibibytes() {
  return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE)) /
         (1 << 30);
}

// Of the last minute: other work on the machine spoils a measurement.
double LoadAverage() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : std::nan("");
}

}  // namespace

int RunBenchmark(int argc, char** argv, CLI::App& app, const JobBody& body) {
  SetUpProcess();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    if (LaunchRank() != 0) return 0;
    const absl::Status written = WriteStdout(app.help());
    return written.ok() ? 0 : RefuseJob(written);
  } catch (const CLI::ParseError& error) {
    return RefuseJob(UsageError(
        absl::StrCat(app.get_name(), ": ", error.what(), "; see `", app.get_name(), " --help`")));
  }
  return RunJob(&argc, &argv, body);
}

void AddNumber(CLI::App& app, const char* name, int* value, int least, const char* help) {
  app.add_option(name, *value, help)->check(Within(least, 1e6))->capture_default_str();
}

Quartiles QuartilesOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&values](double share) {
    const double position = share * static_cast<double>(values.size() - 1);
    const size_t below = static_cast<size_t>(position);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] +
           (position - static_cast<double>(below)) * (values[above] - values[below]);
  };
  return {at(0.25), at(0.5), at(0.75)};
}

void WaitForDevice(at::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

nlohmann::json DescribeMachine(int ranks, int threads) {
  return {{"cpu", ProcessorName()},
          {"gpus", GpuText(FindGpus())},
          {"cores", sysconf(_SC_NPROCESSORS_ONLN)},
          {"memory_gib", MemoryGibibytes()},
          {"load", LoadAverage()},
          {"ranks", ranks},
          {"threads", threads},
          {"kernels", at::get_cpu_capability()},
          {"libtorch", TorchVersions()},
          {"compiler", CompilerVersion()},
          {"program", ProgramHash().value_or("unknown")}};
}

std::string MachineText(const nlohmann::json& machine) {
  return absl::StrFormat(
      "# %s, %d cores, %.0f GiB, load %.2f; ranks %d, threads of each %d; GPUs %s\n"
      "# LibTorch %s (%s), compiler %s, program %s\n",
      machine["cpu"].get<std::string>(), machine["cores"].get<int>(),
      machine["memory_gib"].get<double>(), machine["load"].get<double>(),
      machine["ranks"].get<int>(), machine["threads"].get<int>(),
      machine["gpus"].get<std::string>(), machine["libtorch"].get<std::string>(),
      machine["kernels"].get<std::string>(), machine["compiler"].get<std::string>(),
      machine["program"].get<std::string>().substr(0, 12));
}

}  // namespace hypermoe
