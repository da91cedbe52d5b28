// The benchmarks of whole steps, which differ in their models alone: several models side by side,
// one of each in turn, there and back (A B C, C B A, ...), so that a drift of the machine meets all
// alike. Random tokens; everything else is what `hypermoe pretrain` runs.
#pragma once

#include <string>
#include <vector>

namespace hypermoe {

struct StepBenchmark {
  std::string name, description, example;
  // Of the shape that the options below leave open, as for --set.
  std::vector<std::string> settings;
  // The field of --layers, one for each stack of blocks.
  std::vector<std::string> layer_fields;
  // Defaults of the options.
  std::vector<std::string> kinds;
  int batch = 4, sequence = 256, layers = 4, experts = 8;
  int steps = 20;
};

// The main program. Returns the exit code (runtime/status.h).
int RunStepBenchmark(int argc, char** argv, const StepBenchmark& benchmark);

}  // namespace hypermoe
