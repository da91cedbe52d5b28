// `hypermoe pretrain` in which one rank stops, sleeps or dies at a chosen point:
//
//   fault_program RANK,POINT,STEP,ACTION PRETRAIN_OPTIONS...
//
// POINT is a phase or a kind of collective (MarkPhase, CollectiveName), taken when it first begins
// at or after STEP. ACTION is stop (a second later, so that the rank has said in which phase it
// is), sleep, kill, segv, abort, exit0 or exit1. tests/launch/hang.py runs it and watches what
// becomes of the job.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "launch/commands.h"
#include "launch/distributed_init.h"
#include "launch/run_job.h"
#include "parallel/progress_marks.h"

namespace hypermoe {
namespace {

const std::map<std::string, void (*)()> kActions = {
    {"stop", [] { kill(getpid(), SIGSTOP); }},
    {"sleep", [] { sleep(3600); }},
    {"kill", [] { kill(getpid(), SIGKILL); }},
    {"segv", [] { raise(SIGSEGV); }},
    {"abort", [] { std::abort(); }},
    {"exit0", [] { _exit(0); }},
    {"exit1", [] { _exit(1); }},
};

struct Fault {
  std::string point, action;
  int64_t step = 0;
  bool pending = false;
};
Fault fault;

void AtPoint(const char* point) {
  if (!fault.pending || fault.point != point || ReadProgress().step < fault.step) return;
  fault.pending = false;
  if (fault.action == "stop") sleep(1);
  std::fprintf(stderr, "fault_program: rank %d: %s at %s\n", LaunchRank(), fault.action.c_str(),
               point);
  kActions.at(fault.action)();
}

bool ReadFault(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  int rank = 0;
  if (parts.size() != 4 || !absl::SimpleAtoi(parts[0], &rank) ||
      !absl::SimpleAtoi(parts[2], &fault.step) || !kActions.contains(parts[3])) {
    return false;
  }
  fault.point = parts[1];
  fault.action = parts[3];
  fault.pending = rank == LaunchRank();
  return true;
}

int Main(int argc, char** argv) {
  SetUpProcess();
  if (argc < 2 || !ReadFault(argv[1])) {
    return RefuseJob(UsageError("expected RANK,POINT,STEP,ACTION and options of pretrain"));
  }
  SetProgressHook(AtPoint);
  CLI::App app("hypermoe pretrain with a fault");
  const JobBody body = DefinePretrain(app);
  try {
    app.parse(argc - 1, argv + 1);  // argv[1] stands for the program's name
  } catch (const CLI::ParseError& error) {
    return RefuseJob(UsageError(error.what()));
  }
  return RunJob(&argc, &argv, body);
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
