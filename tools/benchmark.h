// What the benchmarks have in common: how a process starts, statistics, and the machine's
// description.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/run_job.h"

namespace CLI {
class App;
}  // namespace CLI

namespace hypermoe {

// The main program of a benchmark: the memory settings that `hypermoe` itself trains with
// (launch/run_job.h, SetUpProcess), the command line, then `body` as one rank of the job. Returns
// the exit code (runtime/status.h).
int RunBenchmark(int argc, char** argv, CLI::App& app, const JobBody& body);

struct Quartiles {
  double lower = 0, median = 0, upper = 0;
};
// By linear interpolation between neighbours; at least one value.
Quartiles QuartilesOf(std::vector<double> values);

// An integer option from `least` on, with its present value as default.
void AddNumber(CLI::App& app, const char* name, int* value, int least, const char* help);

// Blocks until the device, whose work is queued if it is a GPU, has done all of it.
void WaitForDevice(at::Device device);

// Processor, GPUs, cores, memory, load at this moment, build, ranks and threads a rank.
nlohmann::json DescribeMachine(int ranks, int threads);
// The same in two lines that begin with '#'.
std::string MachineText(const nlohmann::json& machine);

}  // namespace hypermoe
