// Compares a run with an uninterrupted one, for kill_and_resume.py:
//
//   compare_runs REFERENCE_RUN_DIR RUN_DIR
//
// Prints one JSON object: {"differences": [sentences], "checkpoints": [steps], "lines": n}
// (tests/support/run_comparison.h). Exit code 0 whatever it finds.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tests/support/run_comparison.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: compare_runs REFERENCE_RUN_DIR RUN_DIR\n");
    return 64;
  }
  const hypermoe::RunComparison result = hypermoe::CompareRuns(argv[1], argv[2]);
  const nlohmann::json json = {{"differences", result.differences},
                               {"checkpoints", result.checkpoints},
                               {"lines", result.lines}};
  std::printf("%s\n", json.dump().c_str());
  return 0;
}
