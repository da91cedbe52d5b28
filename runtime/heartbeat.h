// What a rank tells the other ranks of a run, and whoever looks, through a small file.
//
// The file is text of a fixed size, overwritten in place by one write. Writer and readers open it
// anew each time: on NFS it is closing that sends what was written to the server, and opening that
// asks the server for what is new ("close to open"). On file systems mounted without that (option
// nocto) news may come a minute late, so runtime.hang_seconds must be longer there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "parallel/progress_marks.h"
#include "runtime/status.h"

namespace hypermoe {

struct Heartbeat {
  int64_t beat = 0;  // counts up with every write
  int rank = 0;
  int world_size = 1;
  std::string host = "?";
  int64_t pid = 0;
  std::string time = "?";  // UTC, by the rank's own clock: for people, never compared
  double idle = 0;         // seconds without progress so far
  // As in Progress; words are never empty ("-").
  int64_t marks = 0, step = 0, collectives = 0, collective = 0;
  std::string phase = "-", kind = "-", group = "-";
  bool inside = false;
};

// Takes over what the process is doing.
void SetProgress(const Progress& progress, Heartbeat* heartbeat);

constexpr size_t kHeartbeatBytes = 512;
std::string HeartbeatText(const Heartbeat& heartbeat);
// Nothing for what is no heartbeat, or half of one and half of the next.
std::optional<Heartbeat> ParseHeartbeat(const std::string& text);

// RUN_DIR/heartbeats, and rank 3's file in it, rank_00003.
std::string HeartbeatFolder(const std::string& run_dir);
std::string HeartbeatPath(const std::string& run_dir, int rank);

// Makes the file if it is not there; the folder must be.
absl::Status WriteHeartbeat(const std::string& path, const Heartbeat& heartbeat);

enum class HeartbeatFound { kNone, kUnreadable, kRead };
// kNone: there is no such file. kUnreadable: another look may help; *heartbeat stays as it was.
HeartbeatFound ReadHeartbeat(const std::string& path, Heartbeat* heartbeat);

}  // namespace hypermoe
