// A job that fails in a chosen way: job_end_program FAULT. tests/launch/job_end.py runs it and
// watches how the job ends.
#include <c10/util/Exception.h>
#include <signal.h>
#include <unistd.h>

#include <map>
#include <new>
#include <string>

#include "launch/run_job.h"
#include "runtime/status.h"

namespace hypermoe {
namespace {

using Fault = absl::Status (*)(Communicator& world);

// The last rank fails in `fail`, while all others wait for it in a collective.
template <typename Function>
absl::Status OnLastRank(Communicator& world, Function fail) {
  if (world.rank() == world.size() - 1) return fail();
  world.Barrier();
  return absl::OkStatus();
}

absl::Status RaiseSignal(int number) {
  raise(number);
  return InternalError("the signal did not end this process");
}

const std::map<std::string, Fault> kFaults = {
    {"none", [](Communicator& world) { return world.Barrier(), absl::OkStatus(); }},
    {"alike", [](Communicator&) { return DataError("the file is bad"); }},
    {"stopped", [](Communicator&) { return Stopped("stopped as asked"); }},
    {"all_throw",
     [](Communicator&) {
       TORCH_CHECK(false, "sizes differ:\n3 and 4");
       return absl::OkStatus();
     }},
    {"one_throws",
     [](Communicator& world) {
       return OnLastRank(world, []() -> absl::Status { throw CommError("all-to-all failed"); });
     }},
    {"one_runs_out_of_memory",
     [](Communicator& world) {
       return OnLastRank(world, []() -> absl::Status { throw std::bad_alloc(); });
     }},
    // A breach of JobBody's contract, which must not become a hang.
    {"one_returns",
     [](Communicator& world) {
       return OnLastRank(world, [] { return IoError("the disk is full"); });
     }},
    // Of which the program itself can say nothing.
    {"one_is_killed",
     [](Communicator& world) { return OnLastRank(world, [] { return RaiseSignal(SIGKILL); }); }},
    {"one_crashes",
     [](Communicator& world) { return OnLastRank(world, [] { return RaiseSignal(SIGSEGV); }); }},
    {"one_leaves",
     [](Communicator& world) { return OnLastRank(world, []() -> absl::Status { _exit(0); }); }},
};

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) {
  const auto fault = hypermoe::kFaults.find(argc == 2 ? argv[1] : "");
  if (fault == hypermoe::kFaults.end()) {
    return hypermoe::RefuseJob(hypermoe::UsageError("no such fault"));
  }
  return hypermoe::RunJob(&argc, &argv, [&](std::shared_ptr<hypermoe::Communicator> world) {
    return fault->second(*world);
  });
}
