// Ends a job in which a rank makes no progress, and says which one.
//
// MPI never notices a process that has been stopped or is stuck: without this all ranks wait for
// ever. Each rank's watchdog looks at its own marks (parallel/progress_marks.h), writes them about
// once a second into a heartbeat file of the run folder (runtime/heartbeat.h), and looks at the
// next rank's file, which is enough to see that any rank is silent, whatever their number. Only
// where something has stood still for half of runtime.hang_seconds does it read all files, to judge
// (runtime/hang_report.h). All ages are measured by the observer's own steady clock; clocks of
// different machines are never compared.
//
// The first rank to see a hang creates a file that can be created once, and so alone reports: on
// stderr and in RUN_DIR/hang_TIME.txt. What a rank that was stopped did is known as of its last
// heartbeat, a second before at most. Then it ends with ExitCode::kHang, upon which mpirun ends
// the others; they end themselves where it does not.
//
// The watching thread calls no MPI or CUDA, and of NCCL only what Communicator::CheckTransport
// allows it. Files may hold it (NFS), and so may NCCL's abort: a second thread, which touches
// memory alone (runtime/progress_deadline.h), then ends the process.
//
// On a GPU collectives return at once: ranks whose GPUs wait for each other are all seen stuck in
// the phase that looks at a result, as a rule "optimizer" or "forward".
//
// Not covered: ranks that hang together in a loop that goes on marking; a hang before Start or
// after destruction, but for what launch/run_job.cc covers of it. While a thread writes a
// checkpoint its progress counts too, so that a rank that is stuck beside it is seen after it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "parallel/process_mesh.h"
#include "runtime/hang_report.h"
#include "runtime/heartbeat.h"
#include "runtime/progress_deadline.h"
#include "runtime/status.h"
#include "runtime/stillness.h"

namespace hypermoe {

struct WatchdogOptions {
  std::string run_dir;  // created if missing; all ranks see the same
  std::string host;     // this machine's name, for messages
  double hang_seconds = 300;
};

class Watchdog {
 public:
  // Collective over `world`; every rank returns the same status. Null if hang_seconds is 0. IoError
  // if a rank cannot write its heartbeat, or does not see that of the next rank within ten seconds.
  static absl::StatusOr<std::unique_ptr<Watchdog>> Start(const WatchdogOptions& options,
                                                         Communicator& world);
  // Local. Removes this rank's heartbeat, and the folders that Start made and nobody has used.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // From now on asks the groups of `mesh` too whether their transport has failed. The job then ends
  // with ExitCode::kCommunication, unless the main thread, which it should free, has ended it
  // within five seconds.
  void WatchTransport(const ProcessMesh& mesh);

 private:
  struct Peer {
    Peer(int rank, const std::string& run_dir, double longest_gap)
        : path(HeartbeatPath(run_dir, rank)), beats(longest_gap) {}
    std::string path;
    Stillness beats;
  };

  Watchdog(const WatchdogOptions& options, int rank, int world_size, bool made_run_dir);
  static absl::Status Prepare(const std::string& run_dir);
  absl::Status AwaitNext();
  void Begin();

  void Watch();
  void Beat(double now);
  void Look(int rank, double now);
  void LookAtOthers(double now);
  bool Suspicious() const;
  void CheckTransports(double now);
  [[noreturn]] void EndJob();

  const WatchdogOptions options_;
  const int rank_, world_size_;
  const bool made_run_dir_;
  const double look_every_;
  int looks_at_once_ = 1;  // files of other ranks that are read at a time
  int next_look_ = 0;
  Stillness own_;
  int64_t beat_ = 0;
  std::vector<Peer> peers_;         // by rank; of the thread, once it runs
  std::vector<RankState> ranks_;    // as this rank sees them, itself too
  double transport_failed_at_ = 0;  // 0: has not
  std::string transport_error_;
  std::atomic<double> last_look_{0};  // when the thread was last seen alive

  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  bool ended_ = false;
  std::vector<std::shared_ptr<Communicator>> groups_;

  std::unique_ptr<ProgressDeadline> last_resort_;
  std::thread thread_;
};

}  // namespace hypermoe
