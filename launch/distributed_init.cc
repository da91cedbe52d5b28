#include "launch/distributed_init.h"

#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <string>

namespace hypermoe {
namespace {

// One bit a core, as the kernel writes it; 8192 is its own upper limit.
using CoreMask = std::array<unsigned long, 8192 / (8 * sizeof(unsigned long))>;

CoreMask OwnCoreMask() {
  CoreMask mask{};
  if (sched_getaffinity(0, sizeof(mask), reinterpret_cast<cpu_set_t*>(mask.data())) != 0) {
    mask[0] = 1;  // does not happen on Linux; one core is always safe to assume
  }
  return mask;
}

std::vector<int> CoresOf(const CoreMask& mask) {
  constexpr int kBits = 8 * sizeof(unsigned long);
  std::vector<int> cores;
  for (int core = 0; core < static_cast<int>(mask.size()) * kBits; ++core) {
    if ((mask[core / kBits] >> (core % kBits)) & 1) cores.push_back(core);
  }
  return cores;
}

// What a context has found out from the other ranks. One for the process, as MPI is.
MachinePlace machine_place;
int job_share_of_cores = 0;  // this rank's share of its machine's; 0: nobody has asked

// Open MPI's mpirun and srun --mpi=pmix set the first ones; MPICH's, Intel's and srun --mpi=pmi2
// the last.
const char* LaunchRankText() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* text = std::getenv(variable)) return text;
  }
  return nullptr;
}

void Check(int code, const char* call) {
  if (code != MPI_SUCCESS) {
    throw CommError(std::string("joining the job failed in ") + call + " with MPI error " +
                    std::to_string(code));
  }
}

// A launcher of another MPI library starts processes that this library takes for jobs of one rank
// each; they would all train alone, and write over each other's files.
void CheckLauncherAgrees() {
  int size = 0;
  Check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* text = std::getenv(variable);
    if (text != nullptr && std::atoi(text) != size) {
      throw CommError(std::string("the launcher started ") + text + " processes (" + variable +
                      "), but the MPI library of this program sees " + std::to_string(size) +
                      ": use the mpirun that belongs to the MPI that hypermoe was built with");
    }
  }
}

}  // namespace

bool StartedByLauncher() { return LaunchRankText() != nullptr; }

int LaunchRank() {
  const char* text = LaunchRankText();
  return text == nullptr ? 0 : std::atoi(text);
}

MachinePlace RankOnMachine() { return machine_place; }

int AvailableThreads() {
  if (job_share_of_cores > 0) return job_share_of_cores;
  return FairShareOfCores({CoresOf(OwnCoreMask())}, 0);
}

std::string MpiLibraryVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);  // allowed before MPI_Init
  const std::string running = text;        // Open MPI counts the final NUL in `length`
  return running.substr(0, running.find('\n')) + "; compiled against MPI " +
         std::to_string(MPI_VERSION) + "." + std::to_string(MPI_SUBVERSION);
}

int FairShareOfCores(const std::vector<std::vector<int>>& cores_by_rank, int rank) {
  double share = 0;
  for (int core : cores_by_rank[rank]) {
    int users = 0;
    for (const std::vector<int>& cores : cores_by_rank) {
      users += static_cast<int>(std::count(cores.begin(), cores.end(), core));
    }
    share += 1.0 / users;
  }
  constexpr double kRounding = 1e-6;  // three thirds are one core
  return std::max(1, static_cast<int>(share + kRounding));
}

DistributedContext::DistributedContext(int* argc, char*** argv)
    : exceptions_at_start_(std::uncaught_exceptions()) {
  if (StartedByLauncher()) {
    JoinMpi(argc, argv);
  } else {
    world_ = NewSelfCommunicator("world");
  }
}

void DistributedContext::JoinMpi(int* argc, char*** argv) {
  int provided = MPI_THREAD_SINGLE;
  // The backward pass of tensors on a GPU runs, and communicates, on a thread of LibTorch's while
  // the main thread waits for it.
  Check(MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_SERIALIZED) {
    throw CommError(
        "the MPI library does not let several threads communicate in turn, expected at least "
        "MPI_THREAD_SERIALIZED: use an MPI built with thread support");
  }
  under_mpi_ = true;
  CheckLauncherAgrees();

  MPI_Comm machine = MPI_COMM_NULL;
  Check(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, /*key=*/0, MPI_INFO_NULL, &machine),
      "MPI_Comm_split_type");
  Check(MPI_Comm_rank(machine, &machine_place.rank), "MPI_Comm_rank");
  Check(MPI_Comm_size(machine, &machine_place.size), "MPI_Comm_size");
  const CoreMask own = OwnCoreMask();
  std::vector<CoreMask> masks(machine_place.size);
  Check(MPI_Allgather(own.data(), sizeof(own), MPI_BYTE, masks.data(), sizeof(own), MPI_BYTE,
                      machine),
        "MPI_Allgather");
  MPI_Comm_free(&machine);
  std::vector<std::vector<int>> cores_by_rank;
  for (const CoreMask& mask : masks) cores_by_rank.push_back(CoresOf(mask));
  job_share_of_cores = FairShareOfCores(cores_by_rank, machine_place.rank);

  world_ = NewMpiWorldCommunicator();
}

DistributedContext::~DistributedContext() {
  if (!under_mpi_ || std::uncaught_exceptions() > exceptions_at_start_) return;
  world_.reset();
  MPI_Finalize();
}

void Abort(int exit_code) {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized && !finalized) MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

}  // namespace hypermoe
