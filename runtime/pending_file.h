// Writing a file so that it is there whole or not at all, even if the process is killed, with
// fields filled in later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/input_file.h"
#include "runtime/status.h"

namespace hypermoe {

// A file being written that has no name until Publish, so that nothing is left of it if the process
// is killed before; where the file system lacks unnamed files (NFS), its name is PATH.tmp.PID and
// it is removed on destruction. Until Sync it is for this user alone, then as the umask says.
class PendingFile {
 public:
  // Creates missing folders. Fails if `path` is something else than a file.
  static absl::StatusOr<std::unique_ptr<PendingFile>> Create(const std::string& path,
                                                             bool allow_unnamed = true);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  // Appends, small pieces through a buffer. The disk works on what was appended while more is.
  absl::Status Append(const void* bytes, size_t size);
  // Overwrites or reads bytes appended before.
  absl::Status WriteAt(int64_t offset, const void* bytes, size_t size);
  absl::Status ReadAt(int64_t offset, void* bytes, size_t size);
  // Makes what was appended durable, and the permissions final. Call before Publish.
  absl::Status Sync();
  // Gives the file its name, in place of any older one. Durable after SyncFolder (file_util.h).
  absl::Status Publish();
  int64_t size() const { return written_ + static_cast<int64_t>(buffer_.size()); }
  const std::string& path() const { return path_; }

 private:
  PendingFile(std::string path, std::string temporary, FileHandle file, bool named);
  absl::Status Flush();
  absl::Status WriteNext(const char* bytes, size_t size);
  absl::Status Write(int64_t offset, const char* bytes, size_t size);

  std::string path_, temporary_;
  FileHandle file_;
  bool named_;
  int64_t written_ = 0;
  int64_t handed_over_ = 0, synced_ = 0;  // to the disk, and surely on it, of those written
  std::vector<char> buffer_;
};

// Writes the lines, each followed by a newline, and gives the file its name, durably.
absl::Status WriteLines(const std::vector<std::string>& lines, PendingFile* file);

}  // namespace hypermoe
