// The life of one process of a job, and how the job says what went wrong: one message on stderr,
// the same documented exit code (runtime/status.h) from every rank and so from mpirun, and no rank
// left waiting.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "parallel/communicator.h"

namespace hypermoe {

// The work of one rank. The status that it returns is the same on every rank; an exception is this
// rank's alone.
using JobBody = std::function<absl::Status(std::shared_ptr<Communicator> world)>;

// What holds for a whole process of ours: call it first of all. Keeps freed memory for later use,
// and makes a file-size limit an error instead of a signal.
void SetUpProcess();

// Joins the job, runs `body` and returns the exit code. A status is reported by rank 0 once. A rank
// with an exception reports it, with its rank, and ends the whole job.
int RunJob(int* argc, char*** argv, const JobBody& body);

// Reports what every rank finds alike before the job is joined, and returns the exit code.
int RefuseJob(const absl::Status& status);

}  // namespace hypermoe
