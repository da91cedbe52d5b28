#include "runtime/file_util.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/xxh3.h"

namespace hypermoe {
namespace {

constexpr size_t kPrintableBytes = 200;

}  // namespace

absl::Status ErrnoError(const std::string& path, const std::string& action, int error) {
  return IoError(absl::StrCat(Printable(path), ": could not ", action, ": ",
                              std::generic_category().message(error)));
}

std::string Printable(const std::string& text) {
  std::string escaped = absl::Utf8SafeCEscape(text.substr(0, kPrintableBytes));
  if (text.size() > kPrintableBytes) escaped += "...";
  return escaped;
}

bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

std::string ParentFolder(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

absl::Status CreateFolders(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return absl::OkStatus();
  const std::string parent = ParentFolder(path);
  if (parent != path) RETURN_IF_ERROR(CreateFolders(parent));
  // Another process may have been faster.
  if (mkdir(path.c_str(), 0777) != 0) {
    const int reason = errno == EEXIST ? ENOTDIR : errno;
    if (!std::filesystem::is_directory(path, error)) {
      return ErrnoError(path, "create the folder", reason);
    }
  }
  return SyncFolder(parent);
}

absl::Status CreatePrivateFolder(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  return ErrnoError(path, "create the folder", errno);
}

absl::Status OpenFolderToOthers(const std::string& path) {
  if (chmod(path.c_str(), 0777 & ~CurrentUmask()) == 0) return absl::OkStatus();
  return ErrnoError(path, "set the permissions", errno);
}

absl::Status SyncFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoError(path, "open the folder", errno);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  // Some network file systems cannot sync folders and say so by EINVAL; their names are durable by
  // themselves.
  if (error != 0 && error != EINVAL) return ErrnoError(path, "sync the folder", error);
  return absl::OkStatus();
}

mode_t CurrentUmask() {
  // umask(2) can only be asked by setting it, for all threads.
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key; status.ignore(1 << 20, '\n')) {
    unsigned mask = 0;
    if (key == "Umask:" && status >> std::oct >> mask) return mask;
  }
  // Before Linux 4.7, or without /proc: nothing for others is the safe answer.
  return 0077;
}

absl::Status WriteAll(int descriptor, const std::string& path, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = write(descriptor, text.data() + done, text.size() - done);
    if (written < 0 && errno != EINTR) return ErrnoError(path, "write", errno);
    if (written > 0) done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

FileDigest DigestOf(const void* data, size_t size) {
  Xxh3 hash;
  hash.Update(data, size);
  return {static_cast<int64_t>(size), hash.Digest()};
}

MappedFile::MappedFile(std::string path, const char* data, size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path,
                                                                   Links links) {
  // O_NONBLOCK: opening a named pipe must not wait for its writer.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (links == Links::kRefuse ? O_NOFOLLOW : 0);
  const int fd = open(path.c_str(), flags);
  if (fd < 0 && errno == ELOOP && links == Links::kRefuse) {
    return IoError(absl::StrCat(
        Printable(path), ": is a symbolic link, which is not followed here; put the file there"));
  }
  if (fd < 0) return ErrnoError(path, "open the file", errno);
  struct stat info;
  void* data = nullptr;
  absl::Status status;
  if (fstat(fd, &info) != 0) {
    status = ErrnoError(path, "read the file's size", errno);
  } else if (!S_ISREG(info.st_mode)) {
    status = IoError(absl::StrCat(Printable(path), ": is not a regular file"));
  } else if (info.st_size > 0) {
    data = mmap(nullptr, info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) status = ErrnoError(path, "map the file into memory", errno);
  }
  close(fd);
  RETURN_IF_ERROR(status);
  return std::shared_ptr<const MappedFile>(
      new MappedFile(path, static_cast<const char*>(data), info.st_size));
}

}  // namespace hypermoe
