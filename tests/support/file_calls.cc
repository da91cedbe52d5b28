#include "tests/support/file_calls.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <mutex>

#include "parallel/steady_seconds.h"

namespace hypermoe {
namespace {

struct Watch {
  std::mutex mutex;
  bool active = false;
  std::string folder;
  int64_t fail_at = -1, seen = 0;
  int error = 0;
  FileCall failed;
  std::vector<FileCall> calls;
};

// Never destroyed: calls come until the process has ended.
Watch& TheWatch() {
  static Watch* const watch = new Watch;
  return *watch;
}

std::string PathOf(int fd) {
  char path[PATH_MAX];
  const ssize_t length =
      readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof(path));
  return length < 0 ? "" : std::string(path, static_cast<size_t>(length));
}

ino_t InodeOf(int fd) {
  struct stat info;
  return fstat(fd, &info) == 0 ? info.st_ino : 0;
}

ino_t InodeOf(const char* path) {
  struct stat info;
  return stat(path, &info) == 0 ? info.st_ino : 0;
}

// The calls of a watched folder come one after the other, so that their order is known.
template <typename Call>
auto Through(const FileCall& about, const Call& call) -> decltype(call()) {
  Watch& watch = TheWatch();
  const std::lock_guard<std::mutex> lock(watch.mutex);
  if (!watch.active || about.path.rfind(watch.folder, 0) != 0) return call();
  if (watch.seen++ == watch.fail_at) {
    watch.failed = about;
    errno = watch.error;
    return -1;
  }
  const auto result = call();
  const int error = errno;
  if (result >= 0) {
    watch.calls.push_back(about);
    watch.calls.back().seconds = SteadySeconds();
  }
  errno = error;
  return result;
}

FileCall About(const char* name, int fd) { return {name, PathOf(fd), InodeOf(fd), 0}; }

ssize_t Write(int fd, const void* bytes, size_t size, off_t offset) {
  return Through(About("pwrite", fd),
                 [&]() -> ssize_t { return syscall(SYS_pwrite64, fd, bytes, size, offset); });
}

int Rename(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  return Through({"rename", to, InodeOf(from), 0}, [&] {
    return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
  });
}

}  // namespace

WatchedFileCalls::WatchedFileCalls(std::string folder, int64_t fail_at, int error)
    : folder_(std::move(folder)) {
  Watch& watch = TheWatch();
  const std::lock_guard<std::mutex> lock(watch.mutex);
  EXPECT_FALSE(watch.active) << "two watches at a time";
  watch.active = true;
  watch.folder = folder_;
  watch.fail_at = fail_at;
  watch.seen = 0;
  watch.error = error;
  watch.failed = {};
  watch.calls.clear();
}

WatchedFileCalls::~WatchedFileCalls() {
  const std::lock_guard<std::mutex> lock(TheWatch().mutex);
  TheWatch().active = false;
}

std::vector<FileCall> WatchedFileCalls::calls() const {
  const std::lock_guard<std::mutex> lock(TheWatch().mutex);
  return TheWatch().calls;
}

FileCall WatchedFileCalls::failed() const {
  const std::lock_guard<std::mutex> lock(TheWatch().mutex);
  return TheWatch().failed;
}

}  // namespace hypermoe

// In place of the C library's, which libraries that are linked statically, or later, then use.
extern "C" {

int fsync(int fd) {
  return hypermoe::Through(hypermoe::About("fsync", fd),
                           [&] { return static_cast<int>(syscall(SYS_fsync, fd)); });
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  return hypermoe::Write(fd, bytes, size, offset);
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) {
  return hypermoe::Write(fd, bytes, size, offset);
}

int rename(const char* from, const char* to) noexcept {
  return hypermoe::Rename(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  return hypermoe::Rename(from_folder, from, to_folder, to, flags);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
  return hypermoe::Through({"linkat", to, hypermoe::InodeOf(from), 0}, [&] {
    return static_cast<int>(syscall(SYS_linkat, from_folder, from, to_folder, to, flags));
  });
}

int mkdir(const char* path, mode_t mode) noexcept {
  return hypermoe::Through({"mkdir", path, 0, 0}, [&] {
    return static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
  });
}

}  // extern "C"
