// What this process asks of the file system below a folder, written down, and failed at will: a
// full disk or a failing one at any moment. A program that links file_calls.cc has its fsync,
// pwrite, rename, renameat2, linkat and mkdir go through it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace hypermoe {

struct FileCall {
  std::string name;    // "fsync"
  std::string path;    // of the file or folder; of renames and links: the new name
  ino_t inode = 0;     // of it; of renames and links: of what gets the name
  double seconds = 0;  // of the steady clock, when the call had been done
};

// One at a time in a process.
class WatchedFileCalls {
 public:
  // Call number `fail_at`, counted from 0 over all threads, fails with `error`; -1: none does.
  explicit WatchedFileCalls(std::string folder, int64_t fail_at = -1, int error = 0);
  ~WatchedFileCalls();
  WatchedFileCalls(const WatchedFileCalls&) = delete;
  WatchedFileCalls& operator=(const WatchedFileCalls&) = delete;

  // Those that were done, in their order.
  std::vector<FileCall> calls() const;
  // The call that was failed; an empty name if there were not so many.
  FileCall failed() const;

 private:
  std::string folder_;
};

}  // namespace hypermoe
