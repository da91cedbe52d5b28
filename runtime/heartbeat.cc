#include "runtime/heartbeat.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "runtime/file_util.h"
#include "runtime/input_file.h"

namespace hypermoe {
namespace {

constexpr char kTitle[] = "hypermoe heartbeat 1";
constexpr size_t kLongestWord = 64;  // so that all of it fits into kHeartbeatBytes

// One word, whatever is in it.
std::string Word(const std::string& text) {
  std::string word = text.substr(0, kLongestWord);
  std::replace_if(
      word.begin(), word.end(), [](unsigned char c) { return c <= ' ' || c == 127; }, '_');
  return word.empty() ? "-" : word;
}

using Fields = std::map<std::string, std::string>;

template <typename Number>
bool Take(const Fields& fields, const char* name, Number* value) {
  const auto found = fields.find(name);
  return found != fields.end() && absl::SimpleAtoi(found->second, value);
}

bool Take(const Fields& fields, const char* name, std::string* value) {
  const auto found = fields.find(name);
  if (found == fields.end()) return false;
  *value = found->second;
  return true;
}

bool Take(const Fields& fields, const char* name, double* value) {
  const auto found = fields.find(name);
  return found != fields.end() && absl::SimpleAtod(found->second, value);
}

}  // namespace

void SetProgress(const Progress& progress, Heartbeat* heartbeat) {
  heartbeat->marks = progress.marks;
  heartbeat->step = progress.step;
  heartbeat->phase = Word(progress.phase);
  heartbeat->collectives = progress.collectives;
  heartbeat->collective = progress.collective;
  heartbeat->kind = Word(progress.kind);
  heartbeat->group = Word(progress.group.data());
  heartbeat->inside = progress.inside;
}

std::string HeartbeatText(const Heartbeat& h) {
  std::string text = absl::StrFormat(
      "%s\nbeat %d\nrank %d\nworld_size %d\nhost %s\npid %d\ntime %s\nidle %.3f\nmarks %d\nstep "
      "%d\nphase %s\ncollectives %d\ncollective %d\nkind %s\ngroup %s\ninside %d\n",
      kTitle, h.beat, h.rank, h.world_size, Word(h.host), h.pid, Word(h.time), h.idle, h.marks,
      h.step, Word(h.phase), h.collectives, h.collective, Word(h.kind), Word(h.group),
      static_cast<int>(h.inside));
  // The last line repeats the first, so that a reader sees that both are of one write.
  const std::string end = absl::StrFormat("end %d\n", h.beat);
  text.resize(kHeartbeatBytes - end.size(), ' ');
  return text + end;
}

std::optional<Heartbeat> ParseHeartbeat(const std::string& text) {
  if (text.size() != kHeartbeatBytes) return std::nullopt;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (lines.front() != kTitle) return std::nullopt;
  Fields fields;
  for (const std::string& line : lines) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.size() == 2) fields[words[0]] = words[1];
  }
  Heartbeat h;
  int64_t end = -1;
  int inside = 0;
  const bool whole = Take(fields, "beat", &h.beat) && Take(fields, "rank", &h.rank) &&
                     Take(fields, "world_size", &h.world_size) && Take(fields, "host", &h.host) &&
                     Take(fields, "pid", &h.pid) && Take(fields, "time", &h.time) &&
                     Take(fields, "idle", &h.idle) && Take(fields, "marks", &h.marks) &&
                     Take(fields, "step", &h.step) && Take(fields, "phase", &h.phase) &&
                     Take(fields, "collectives", &h.collectives) &&
                     Take(fields, "collective", &h.collective) && Take(fields, "kind", &h.kind) &&
                     Take(fields, "group", &h.group) && Take(fields, "inside", &inside) &&
                     Take(fields, "end", &end);
  if (!whole || end != h.beat) return std::nullopt;
  h.inside = inside != 0;
  return h;
}

std::string HeartbeatFolder(const std::string& run_dir) {
  return absl::StrCat(run_dir, "/heartbeats");
}

std::string HeartbeatPath(const std::string& run_dir, int rank) {
  return absl::StrFormat("%s/rank_%05d", HeartbeatFolder(run_dir), rank);
}

absl::Status WriteHeartbeat(const std::string& path, const Heartbeat& heartbeat) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return ErrnoError(path, "open", errno);
  const std::string text = HeartbeatText(heartbeat);
  const ssize_t written = pwrite(fd, text.data(), text.size(), 0);
  const int write_error = written < 0 ? errno : ENOSPC;
  const bool closed = close(fd) == 0;  // where NFS says what became of the write
  if (written != static_cast<ssize_t>(text.size())) return ErrnoError(path, "write", write_error);
  return closed ? absl::OkStatus() : ErrnoError(path, "write", errno);
}

HeartbeatFound ReadHeartbeat(const std::string& path, Heartbeat* heartbeat) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? HeartbeatFound::kNone : HeartbeatFound::kUnreadable;
  const FileHandle file(fd);
  std::string text(kHeartbeatBytes, '\0');
  const ssize_t count = pread(file.get(), text.data(), text.size(), 0);
  if (count != static_cast<ssize_t>(text.size())) return HeartbeatFound::kUnreadable;
  const std::optional<Heartbeat> parsed = ParseHeartbeat(text);
  if (!parsed.has_value()) return HeartbeatFound::kUnreadable;
  *heartbeat = *parsed;
  return HeartbeatFound::kRead;
}

}  // namespace hypermoe
