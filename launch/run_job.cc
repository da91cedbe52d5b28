#include "launch/run_job.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "launch/distributed_init.h"
#include "launch/run_guarded.h"
#include "parallel/progress_marks.h"
#include "runtime/process_memory.h"
#include "runtime/progress_deadline.h"
#include "runtime/status.h"

namespace hypermoe {
namespace {

// A rank that has nothing to say must not end, and make mpirun end the job, before rank 0 has
// spoken.
constexpr auto kQuietWait = std::chrono::seconds(3);
// When ranks that fail alike must all have come to the end of the job.
constexpr auto kLeaveWithin = std::chrono::seconds(2);

int CodeOf(const absl::Status& status) { return static_cast<int>(ExitCodeOf(status)); }

// One line in one write, so that lines of several ranks never mix.
void PrintError(absl::string_view prefix, const absl::Status& status) {
  const std::string message(absl::StripAsciiWhitespace(status.message()));
  const std::string line =
      absl::StrCat("hypermoe: error: ", prefix, absl::StrReplaceAll(message, {{"\n", " "}}), "\n");
  std::fflush(stdout);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

std::string RankPrefix() { return absl::StrCat("rank ", LaunchRank(), ": "); }

// Others may wait for this rank in a collective, so it ends the job. When all fail alike at the
// same time, the lower ranks' head start makes one message of many.
[[noreturn]] void EndJob(const absl::Status& status, bool alone) {
  std::this_thread::sleep_for(std::chrono::milliseconds(std::min(1000, 200 * LaunchRank())));
  PrintError(alone ? "" : RankPrefix(), status);
  Abort(CodeOf(status));
}

// For the case that the ranks have not failed alike after all: leaving the job waits for all of
// them.
void EndJobLater(const absl::Status& status) {
  std::thread([status] {
    std::this_thread::sleep_for(kLeaveWithin);
    if (LaunchRank() != 0) PrintError(RankPrefix(), status);
    Abort(CodeOf(status));
  }).detach();
}

}  // namespace

void SetUpProcess() {
  UseMallocForTensors();
  LimitKernelCaches();
  // glibc gives large blocks back to the system when they are freed, and the next step pays for
  // each page again. Tensors of all steps have the same sizes: keep what has been used once.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);  // never, 2 GiB and more included
  mallopt(M_TOP_PAD, 64 << 20);
  // A file-size limit is then an error that names the file, not a signal.
  std::signal(SIGXFSZ, SIG_IGN);
}

int RunJob(int* argc, char*** argv, const JobBody& body) {
  std::unique_ptr<DistributedContext> context;
  const Outcome outcome = RunGuarded([&] {
    {
      MarkPhase("join");
      const ProgressDeadline deadline(kStartSeconds, LaunchRank());
      context = std::make_unique<DistributedContext>(argc, argv);
    }
    MarkPhase("start");
    return body(context->world());
  });
  if (outcome.thrown) EndJob(outcome.status, context != nullptr && context->world()->size() == 1);
  if (!outcome.status.ok()) {
    if (LaunchRank() == 0) PrintError("", outcome.status);
    EndJobLater(outcome.status);
  }
  MarkPhase("leave");
  const ProgressDeadline deadline(kStartSeconds, LaunchRank());
  context.reset();
  return CodeOf(outcome.status);
}

int RefuseJob(const absl::Status& status) {
  if (LaunchRank() == 0) {
    PrintError("", status);
  } else {
    std::this_thread::sleep_for(kQuietWait);
  }
  return CodeOf(status);
}

}  // namespace hypermoe
