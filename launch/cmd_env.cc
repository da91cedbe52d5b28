// hypermoe env: what a problem report should say about the program and the machines it runs on.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <absl/base/config.h>
#include <gnu/libc-version.h>
#include <google/protobuf/stubs/common.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "launch/build_identity.h"
#include "launch/commands.h"
#include "launch/distributed_init.h"
#include "launch/gpus.h"

namespace hypermoe {
namespace {

// The value of the first line "KEY : VALUE" of a file of /proc; "unknown" where there is none.
std::string ProcValue(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, key)) continue;
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (parts.size() == 2) return std::string(absl::StripAsciiWhitespace(parts[1]));
  }
  return "unknown";
}

// "128 GiB" of "134217728 kB".
std::string Gibibytes(const std::string& kilobytes) {
  int64_t value = 0;
  const std::vector<std::string> parts = absl::StrSplit(kilobytes, ' ');
  if (!absl::SimpleAtoi(parts[0], &value)) return kilobytes;
  return absl::StrFormat("%.1f GiB", static_cast<double>(value) / (1 << 20));
}

std::string Limit(int resource) {
  struct rlimit limit;
  if (getrlimit(resource, &limit) != 0) return "unknown";
  return limit.rlim_cur == RLIM_INFINITY ? "unlimited" : absl::StrCat(limit.rlim_cur);
}

// Memory that the container or batch system grants; "none" where /sys says nothing.
std::string MemoryLimit() {
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    std::string text;
    int64_t bytes = 0;
    if (!(file >> text) || !absl::SimpleAtoi(text, &bytes)) continue;
    // The older interface writes a huge number for none.
    if (bytes < (int64_t{1} << 50)) return Gibibytes(absl::StrCat(bytes / 1024));
  }
  return "none";
}

// The cores that this process may run on, as "0-3,8".
std::string Affinity() { return ProcValue("/proc/self/status", "Cpus_allowed_list"); }

std::string Line(absl::string_view key, const std::string& value) {
  return absl::StrFormat("%-13s%s\n", key, value);
}

std::string DescribePrograms() {
  const std::string protobuf = google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION);
  std::string text;
  text += Line("compiler", CompilerVersion());
  text += Line("glibc", absl::StrCat("compiled ", __GLIBC__, ".", __GLIBC_MINOR__, ", running ",
                                     gnu_get_libc_version()));
  text += Line("LibTorch",
               absl::StrCat(TorchVersions(), " (kernels for ", at::get_cpu_capability(), ")"));
  text += Line("MPI", MpiLibraryVersion());
  text += Line("protobuf", protobuf + " (static)");
  text += Line("Abseil", absl::StrCat(ABSL_LTS_RELEASE_VERSION, ".", ABSL_LTS_RELEASE_PATCH_LEVEL));
  text += Line("CLI11", CLI11_VERSION);
  text += Line("program", absl::StrCat("hash ", ProgramHash().value_or("unknown")));
  return text;
}

// What differs from machine to machine.
std::string DescribeMachine() {
  struct utsname system;
  uname(&system);
  std::string text;
  text += Line("  kernel", absl::StrCat(system.sysname, " ", system.release, " ", system.machine));
  text += Line("  CPU", ProcValue("/proc/cpuinfo", "model name"));
  text += Line("  CPUs", absl::StrCat(sysconf(_SC_NPROCESSORS_ONLN), " online"));
  text += Line("  GPUs", GpuText(FindGpus()));
  text += Line("  memory",
               absl::StrCat(Gibibytes(ProcValue("/proc/meminfo", "MemTotal")), ", available ",
                            Gibibytes(ProcValue("/proc/meminfo", "MemAvailable")),
                            ", limit of the container ", MemoryLimit()));
  text += Line("  limits", absl::StrCat("open files ", Limit(RLIMIT_NOFILE), ", address space ",
                                        Limit(RLIMIT_AS), ", locked memory ", Limit(RLIMIT_MEMLOCK),
                                        ", file size ", Limit(RLIMIT_FSIZE)));
  return text;
}

absl::Status Run(Communicator& world) {
  const int threads = UseThreads(0);
  // Host, machine, rank's line, separated by a byte that none of them contains.
  const std::string own =
      absl::StrCat(HostName(), std::string(1, '\0'), DescribeMachine(), std::string(1, '\0'),
                   "process ", getpid(), ", CPUs ", Affinity(), ", threads ", threads);
  const std::vector<std::string> all = world.AllGatherText(own);
  if (world.rank() != 0) return absl::OkStatus();

  std::string text = DescribePrograms();
  text += Line("ranks", absl::StrCat(world.size(), StartedByLauncher() ? "" : " (no launcher)"));
  std::string last_host;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    const std::vector<std::string> parts = absl::StrSplit(all[rank], '\0');
    if (parts[0] != last_host) absl::StrAppend(&text, Line("machine", parts[0]), parts[1]);
    last_host = parts[0];
    text += Line(absl::StrCat("  rank ", rank), parts[2]);
  }
  return WriteStdout(text);
}

}  // namespace

JobBody DefineEnv(CLI::App& app) {
  app.footer(
      "Please add its output to a problem report.\n"
      "Example:\n"
      "  mpirun -np 4 hypermoe env");
  return [](std::shared_ptr<Communicator> world) { return Run(*world); };
}

}  // namespace hypermoe
