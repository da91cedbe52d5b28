#include "runtime/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "runtime/file_util.h"

namespace hypermoe {

FileHandle::FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
FileHandle::~FileHandle() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<FileHandle> OpenInput(const std::string& path) {
  FileHandle file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info;
  if (file.get() < 0 || fstat(file.get(), &info) != 0) return ErrnoError(path, "open", errno);
  if (S_ISDIR(info.st_mode)) {
    return ErrnoError(path, "read", EISDIR);
  }
  return file;
}

absl::StatusOr<size_t> ReadUpTo(const FileHandle& file, const std::string& path, char* bytes,
                                size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t count = read(file.get(), bytes + done, size - done);
    if (count == 0) break;
    if (count < 0 && errno != EINTR) return ErrnoError(path, "read", errno);
    if (count > 0) done += static_cast<size_t>(count);
  }
  return done;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  ASSIGN_OR_RETURN(const FileHandle file, OpenInput(path));
  std::string text(max_bytes, '\0');
  ASSIGN_OR_RETURN(const size_t size, ReadUpTo(file, path, text.data(), text.size()));
  text.resize(size);
  return text;
}

}  // namespace hypermoe
