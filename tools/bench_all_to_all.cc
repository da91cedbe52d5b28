// Times the collectives that training uses (parallel/communicator.h) over a range of sizes, in the
// terms and the layout of nccl-tests:
//
//   size    see CollectiveCase; what a rank sends, the operand, or the result
//   algbw   size / time
//   busbw   algbw times what the bottleneck link carries of it: (n-1)/n, for all-reduce 2(n-1)/n
//   #wrong  elements of the result, over all ranks, that are not what they must be
//
// Reductions and gathers work in place, all-to-all does not: Communicator has no other form.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "tools/benchmark.h"
#include "tools/collective_cases.h"

namespace hypermoe {
namespace {

constexpr int64_t kElementBytes = 4;  // float32

struct Arguments {
  std::vector<std::string> operations;
  int64_t min_bytes = 64, max_bytes = int64_t{64} << 20;
  int factor = 4, rounds = 5, iterations = 0;
  bool json = false;
};

// Seconds of one call: the mean of a row of calls on the slowest rank; the median of `rounds` rows.
double TimeCalls(const CollectiveCase& collective, int64_t count, const Arguments& arguments,
                 Communicator& world) {
  // Zeros: sums of sums in place must not grow without end.
  const at::Tensor operand = at::zeros({count}, at::kFloat);
  int64_t calls = arguments.iterations;
  if (calls == 0)
    calls = std::clamp<int64_t>((int64_t{64} << 20) / (count * kElementBytes), 2, 200);
  std::vector<double> seconds;
  for (int round = 0; round <= arguments.rounds; ++round) {  // the first one warms up
    world.Barrier();
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < calls; ++i) collective.call(operand, world);
    double row = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    world.AllReduceMax(at::from_blob(&row, {1}, at::kDouble));
    if (round > 0) seconds.push_back(row / static_cast<double>(calls));
  }
  return QuartilesOf(seconds).median;
}

nlohmann::json Measure(const CollectiveCase& collective, int64_t count, const Arguments& arguments,
                       Communicator& world) {
  const int64_t wrong = CountWrong(collective, count, world);
  const double seconds = TimeCalls(collective, count, arguments, world);
  const double bytes = static_cast<double>(count * kElementBytes);
  const double n = world.size();
  const double algorithm = bytes / seconds / 1e9;
  return {{"operation", collective.name},
          {"bytes", count * kElementBytes},
          {"count", count},
          {"microseconds", seconds * 1e6},
          {"algorithm_gb_per_second", algorithm},
          {"bus_gb_per_second", algorithm * collective.bus_factor * (n - 1) / n},
          {"wrong", wrong}};
}

std::string TableHead(const char* name) {
  return absl::StrFormat(
      "#\n# %s\n# %12s %12s %8s %10s %8s %8s %7s\n# %12s %12s %8s %10s %8s %8s\n", name, "size",
      "count", "type", "time", "algbw", "busbw", "#wrong", "(B)", "(elements)", "", "(us)",
      "(GB/s)", "(GB/s)");
}

std::string TableLine(const nlohmann::json& line) {
  return absl::StrFormat("  %12d %12d %8s %10.2f %8.2f %8.2f %7d\n", line["bytes"].get<int64_t>(),
                         line["count"].get<int64_t>(), "float", line["microseconds"].get<double>(),
                         line["algorithm_gb_per_second"].get<double>(),
                         line["bus_gb_per_second"].get<double>(), line["wrong"].get<int64_t>());
}

// Each line as soon as it has been measured.
absl::Status Run(const Arguments& arguments, Communicator& world) {
  const bool speaks = world.rank() == 0;
  const nlohmann::json machine = DescribeMachine(world.size(), UseThreads(0));
  if (speaks) {
    RETURN_IF_ERROR(WriteStdout(arguments.json ? nlohmann::json{{"machine", machine}}.dump() + "\n"
                                               : MachineText(machine)));
  }
  int64_t wrong = 0;
  for (const CollectiveCase& collective : AllCollectiveCases()) {
    const std::vector<std::string>& wanted = arguments.operations;
    if (!wanted.empty() && std::count(wanted.begin(), wanted.end(), collective.name) == 0) continue;
    if (speaks && !arguments.json) RETURN_IF_ERROR(WriteStdout(TableHead(collective.name)));
    for (int64_t bytes = arguments.min_bytes; bytes <= arguments.max_bytes;
         bytes *= arguments.factor) {
      // Whole parts for all ranks, as nccl-tests has it.
      const int64_t part = std::max<int64_t>(1, bytes / kElementBytes / world.size());
      const nlohmann::json line = Measure(collective, part * world.size(), arguments, world);
      wrong += line["wrong"].get<int64_t>();
      if (speaks)
        RETURN_IF_ERROR(WriteStdout(arguments.json ? line.dump() + "\n" : TableLine(line)));
    }
  }
  if (wrong == 0) return absl::OkStatus();
  return InternalError(absl::StrCat("the collectives returned ", wrong,
                                    " wrong elements (column #wrong), expected none: this is a "
                                    "defect of the program or the MPI library, report it"));
}

int Main(int argc, char** argv) {
  CLI::App app("Times collectives over a range of sizes, in nccl-tests' terms.",
               "bench_all_to_all");
  Arguments arguments;
  std::vector<std::string> names;
  for (const CollectiveCase& collective : AllCollectiveCases()) names.push_back(collective.name);
  app.add_option("--operation", arguments.operations, "Those to time; default: all")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  const CLI::Validator size = Within(4, 1e11);
  app.add_option("--min_bytes", arguments.min_bytes, "Smallest size")
      ->check(size)
      ->capture_default_str();
  app.add_option("--max_bytes", arguments.max_bytes, "Largest size")
      ->check(size)
      ->capture_default_str();
  app.add_option("--factor", arguments.factor, "From one size to the next")
      ->check(Within(2, 1e6))
      ->capture_default_str();
  app.add_option("--iterations", arguments.iterations, "Calls of a round; 0: 2 to 200, by size")
      ->check(Within(0, 1e9))
      ->capture_default_str();
  app.add_option("--rounds", arguments.rounds, "Rounds, of which the median counts")
      ->check(Within(1, 1e6))
      ->capture_default_str();
  app.add_flag("--json", arguments.json, "JSON lines instead of tables");
  app.footer("Example:\n  mpirun -np 4 build/bench_all_to_all --operation all_to_all,all_reduce");
  return RunBenchmark(argc, argv, app, [&arguments](std::shared_ptr<Communicator> world) {
    return Run(arguments, *world);
  });
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
