// Joins this process to its job, and leaves it again.
//
// A process that a launcher (mpirun, srun) started is one rank of MPI_COMM_WORLD. One that was
// started without is a job of its own: MPI is not even initialised, which saves a second and works
// where MPI does not.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace hypermoe {

class DistributedContext {
 public:
  // Joins the job; at most once in a process, on its main thread. Threads may then communicate, one
  // at a time. Throws CommError if the launcher belongs to another MPI library than the one this
  // program uses.
  DistributedContext(int* argc, char*** argv);

  // Leaves the job: collective, waits for the other ranks. When an exception unwinds through here
  // the other ranks may never come, so nothing is waited for: the process should end soon, by
  // Abort, and else the launcher ends the job.
  ~DistributedContext();
  DistributedContext(const DistributedContext&) = delete;
  DistributedContext& operator=(const DistributedContext&) = delete;

  const std::shared_ptr<Communicator>& world() const { return world_; }

 private:
  void JoinMpi(int* argc, char*** argv);

  std::shared_ptr<Communicator> world_;
  bool under_mpi_ = false;
  int exceptions_at_start_ = 0;
};

// Ends all processes of the job at once with `exit_code`, without flushing or cleaning up anything.
// May be called before and after the life of a context, and from another thread while the main
// thread is stuck.
[[noreturn]] void Abort(int exit_code);

// Threads that this rank can use without taking cores from others of the same machine, at least 1.
// Before a context has joined the job, or without one, as if this rank were alone on the machine.
int AvailableThreads();

// This process among the ranks of its machine; alone before a context has joined the job.
struct MachinePlace {
  int rank = 0;
  int size = 1;
};
MachinePlace RankOnMachine();

// What the environment says before a context has joined the job: whether a launcher started this
// process as a rank, and as which one of the world (0 without a launcher).
bool StartedByLauncher();
int LaunchRank();

// The MPI library that this process has loaded, in its own words, and the version of the standard
// it was compiled against.
std::string MpiLibraryVersion();

// Cores for rank `rank` when rank i of its machine may run on the cores cores_by_rank[i]: every
// core is shared equally among the ranks that may use it; the sum is rounded down, at least 1.
int FairShareOfCores(const std::vector<std::vector<int>>& cores_by_rank, int rank);

}  // namespace hypermoe
