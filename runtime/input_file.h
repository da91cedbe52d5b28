// Reading files and pipes, with errors that name them.
#pragma once

#include <cstddef>
#include <string>

#include "runtime/status.h"

namespace hypermoe {

// A file descriptor that closes itself.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int fd) : fd_(fd) {}
  FileHandle(FileHandle&& other) noexcept;
  FileHandle& operator=(FileHandle&& other) noexcept;
  ~FileHandle();
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// Opens a file or pipe for reading; a folder is an error.
absl::StatusOr<FileHandle> OpenInput(const std::string& path);

// Reads until `size` bytes have come or the file ends; the number read.
absl::StatusOr<size_t> ReadUpTo(const FileHandle& file, const std::string& path, char* bytes,
                                size_t size);

// The first `max_bytes` of a file.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

}  // namespace hypermoe
