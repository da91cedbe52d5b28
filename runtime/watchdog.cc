#include "runtime/watchdog.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "parallel/progress_marks.h"
#include "parallel/steady_seconds.h"
#include "runtime/agreement.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

constexpr double kSeeNextWithin = 10;   // seconds, for file systems that show new files late
constexpr double kReportWithin = 3;     // after which ranks that do not report end themselves
constexpr double kMainEndsWithin = 5;   // after the transport has failed
constexpr double kLastResortAfter = 5;  // beyond hang_seconds
constexpr size_t kLinesOnStderr = 64;
constexpr char kClaim[] = "hang_claim";  // whoever creates it reports

std::string UtcTime(const char* format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  char text[64];
  std::strftime(text, sizeof(text), format, &parts);
  return text;
}

// A thread that cannot look for longer has not seen what happened meanwhile.
double LongestGap(double look_every, double looks_between) {
  return std::max(1.0, 3 * look_every * looks_between);
}

// So many that all files are read three times within half of hang_seconds.
int LooksAtOnce(int world_size, double hang_seconds) {
  constexpr double kAtLeast = 16;
  const double needed = 3 * world_size * LookEvery(hang_seconds) / (hang_seconds / 2);
  return static_cast<int>(std::ceil(std::max(kAtLeast, needed)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Watchdog>> Watchdog::Start(const WatchdogOptions& options,
                                                          Communicator& world) {
  std::unique_ptr<Watchdog> watchdog;
  if (options.hang_seconds <= 0) return watchdog;
  // A rank that is still ending an earlier watchdog would remove what this one makes.
  world.Barrier();
  // Rank 0 alone looks, and before it makes the folder.
  std::error_code ignored;
  const bool makes = world.rank() == 0 && !fs::exists(options.run_dir, ignored);
  const absl::Status prepared = world.rank() == 0 ? Prepare(options.run_dir) : absl::OkStatus();
  RETURN_IF_ERROR(Agree(world, prepared));
  const bool made = !world.AllGatherText(makes ? "made" : "")[0].empty();
  watchdog.reset(new Watchdog(options, world.rank(), world.size(), made));
  RETURN_IF_ERROR(Agree(world, WriteHeartbeat(watchdog->peers_[world.rank()].path,
                                              *watchdog->ranks_[world.rank()].heartbeat)));
  RETURN_IF_ERROR(Agree(world, watchdog->AwaitNext()));
  watchdog->Begin();
  return watchdog;
}

// An empty folder for heartbeats: those of a job that was killed would look like ranks.
absl::Status Watchdog::Prepare(const std::string& run_dir) {
  const std::string folder = HeartbeatFolder(run_dir);
  RETURN_IF_ERROR(CreateFolders(folder));
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name == kClaim || absl::StartsWith(name, "rank_")) unlink(entry->path().c_str());
  }
  return error ? ErrnoError(folder, "list the files", error.value()) : absl::OkStatus();
}

Watchdog::Watchdog(const WatchdogOptions& options, int rank, int world_size, bool made_run_dir)
    : options_(options),
      rank_(rank),
      world_size_(world_size),
      made_run_dir_(made_run_dir),
      look_every_(LookEvery(options.hang_seconds)),
      looks_at_once_(LooksAtOnce(world_size, options.hang_seconds)),
      own_(LongestGap(look_every_, 1)),
      ranks_(world_size) {
  const double looks_between = std::ceil(static_cast<double>(world_size) / looks_at_once_);
  for (int peer = 0; peer < world_size; ++peer) {
    peers_.emplace_back(peer, options.run_dir, LongestGap(look_every_, looks_between));
  }
  Heartbeat own;
  own.rank = rank;
  own.world_size = world_size;
  own.host = options.host;
  own.pid = getpid();
  own.time = UtcTime("%Y-%m-%dT%H:%M:%SZ");
  SetProgress(ReadProgress(), &own);
  ranks_[rank].heartbeat = own;
}

// All ranks have written theirs.
absl::Status Watchdog::AwaitNext() {
  const int next = (rank_ + 1) % world_size_;
  const double until = SteadySeconds() + kSeeNextWithin;
  Heartbeat heartbeat;
  while (ReadHeartbeat(peers_[next].path, &heartbeat) != HeartbeatFound::kRead) {
    if (SteadySeconds() > until) {
      return IoError(absl::StrCat(
          "machine ", options_.host, " does not see ", peers_[next].path, ", which rank ", next,
          " has written: give a --run_dir on a file system that all machines share"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return absl::OkStatus();
}

void Watchdog::Begin() {
  last_look_ = SteadySeconds();
  const double patience = options_.hang_seconds;
  last_resort_ = std::make_unique<ProgressDeadline>(
      patience + kLastResortAfter, rank_,
      [this, patience] { return SteadySeconds() - last_look_ >= patience; });
  thread_ = std::thread([this] { Watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  // The last resort stands by: a file system may hold the thread.
  if (thread_.joinable()) thread_.join();
  groups_.clear();  // may be the last to hold them, and their end may wait for other ranks
  last_resort_.reset();
  unlink(peers_[rank_].path.c_str());
  rmdir(HeartbeatFolder(options_.run_dir).c_str());  // by the last rank: else it is not empty
  if (made_run_dir_) rmdir(options_.run_dir.c_str());
}

void Watchdog::WatchTransport(const ProcessMesh& mesh) {
  const std::lock_guard lock(mutex_);
  groups_ = {mesh.world, mesh.expert, mesh.expert_data};
}

void Watchdog::Watch() {
  BlockSignals();
  const std::chrono::duration<double> look_every(look_every_);
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, look_every, [this] { return ended_; })) {
    lock.unlock();
    const double now = SteadySeconds();
    last_look_ = now;
    Beat(now);
    LookAtOthers(now);
    CheckTransports(now);
    if (JobHangs(ranks_, rank_, options_.hang_seconds)) EndJob();
    lock.lock();
  }
}

void Watchdog::Beat(double now) {
  const Progress progress = ReadProgress();
  Heartbeat& own = *ranks_[rank_].heartbeat;
  SetProgress(progress, &own);
  own.idle = own_.Observe(progress.marks, now);
  own.beat = ++beat_;
  own.time = UtcTime("%Y-%m-%dT%H:%M:%SZ");
  // A file that cannot be kept up to date (a full disk) would tell the others that this rank has
  // stopped; without one they know nothing of it.
  if (!WriteHeartbeat(peers_[rank_].path, own).ok()) unlink(peers_[rank_].path.c_str());
}

void Watchdog::Look(int rank, double now) {
  if (rank == rank_) return;
  RankState& state = ranks_[rank];
  Heartbeat heartbeat = state.heartbeat.value_or(Heartbeat());
  switch (ReadHeartbeat(peers_[rank].path, &heartbeat)) {
    case HeartbeatFound::kNone:
      state = RankState();
      return;
    case HeartbeatFound::kUnreadable:
      if (!state.heartbeat.has_value()) return;
      break;
    case HeartbeatFound::kRead:
      state.heartbeat = heartbeat;
  }
  state.silent = peers_[rank].beats.Observe(heartbeat.beat, now);
}

bool Watchdog::Suspicious() const {
  const RankState& next = ranks_[(rank_ + 1) % world_size_];
  return std::max(ranks_[rank_].idle(), next.silent) >= options_.hang_seconds / 2;
}

void Watchdog::LookAtOthers(double now) {
  Look((rank_ + 1) % world_size_, now);
  if (!Suspicious()) return;
  for (int i = 0; i < std::min(looks_at_once_, world_size_); ++i) {
    next_look_ = (next_look_ + 1) % world_size_;
    if (next_look_ != (rank_ + 1) % world_size_) Look(next_look_, now);
  }
}

void Watchdog::CheckTransports(double now) {
  std::vector<std::shared_ptr<Communicator>> groups;
  {
    const std::lock_guard lock(mutex_);
    groups = groups_;
  }
  if (transport_failed_at_ == 0) {
    try {
      for (const auto& group : groups) group->CheckTransport();
      return;
    } catch (const CommError& error) {
      transport_failed_at_ = now;
      transport_error_ = error.what();
    }
  }
  if (now - transport_failed_at_ < kMainEndsWithin) return;
  WriteStderrNow(absl::StrCat("hypermoe: error: rank ", rank_, ": ", transport_error_, "\n"));
  _exit(static_cast<int>(ExitCode::kCommunication));
}

void Watchdog::EndJob() {
  const std::string claim = absl::StrCat(HeartbeatFolder(options_.run_dir), "/", kClaim);
  const int fd = open(claim.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0 && errno == EEXIST) {
    std::this_thread::sleep_for(std::chrono::duration<double>(kReportWithin));
    _exit(static_cast<int>(ExitCode::kHang));
  }
  const HangReport report = DescribeHang(ranks_, options_.hang_seconds);
  const std::string path =
      absl::StrCat(options_.run_dir, "/hang_", UtcTime("%Y%m%dT%H%M%SZ"), ".txt");
  std::string text =
      absl::StrCat("hypermoe: error: ", report.headline, "; all ranks below and in ", path,
                   "; start the same command again to go on from the newest "
                   "checkpoint; runtime.hang_seconds (",
                   options_.hang_seconds, ") sets the limit\n");
  std::string all = absl::StrCat(report.headline, "\n");
  for (size_t rank = 0; rank < report.ranks.size(); ++rank) {
    absl::StrAppend(&all, report.ranks[rank], "\n");
    if (rank < kLinesOnStderr) absl::StrAppend(&text, "  ", report.ranks[rank], "\n");
  }
  // The file last: it may take longer than the others wait.
  WriteStderrNow(text);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file >= 0) {
    (void)!WriteAll(file, path, all).ok();
    close(file);
  }
  _exit(static_cast<int>(ExitCode::kHang));
}

}  // namespace hypermoe
