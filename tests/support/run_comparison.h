// Whether a run that was stopped, killed and resumed is the one that never was, bit for bit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hypermoe {

struct RunComparison {
  std::vector<std::string> differences;  // one sentence each
  std::vector<int64_t> checkpoints;      // steps that were compared, ascending
  int64_t lines = 0;                     // of metrics.jsonl that were compared
};

// Compares all that `run` holds with what `reference` wrote at the same steps; `run` may hold less.
//
// Each checkpoint of `run`: step, count of optimizer updates, fingerprint of the data, whatever of
// the configuration a resume may not change, and the bytes of every tensor (parameters and both
// moments). What is in a checkpoint and is nowhere else: random numbers, learning rate and the
// position in the data follow from its step and seed, and show in the lines of later steps.
// Each line of metrics.jsonl: everything but times, memory and traffic, to the last bit. A last
// line without its end, as a killed job leaves it, is no line.
//
// A checkpoint or line that cannot be read, or that `reference` does not have, is a difference.
RunComparison CompareRuns(const std::string& reference, const std::string& run);

// A line of metrics.jsonl without what depends on the clock, the process and optimizer.zero1.
std::string ComparableLine(const std::string& line);

}  // namespace hypermoe
