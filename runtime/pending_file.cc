#include "runtime/pending_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "parallel/progress_marks.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

constexpr size_t kBufferBytes = 1 << 20;
constexpr int64_t kWritebackBytes = 8 << 20, kSyncBytes = 256 << 20;
// Of a file that is not complete, and of one that is (less the umask).
constexpr mode_t kPendingMode = 0600, kMode = 0666;

std::string LinkTo(const FileHandle& file) { return absl::StrCat("/proc/self/fd/", file.get()); }

}  // namespace

absl::StatusOr<std::unique_ptr<PendingFile>> PendingFile::Create(const std::string& path,
                                                                 bool allow_unnamed) {
  const std::string folder = ParentFolder(path);
  RETURN_IF_ERROR(CreateFolders(folder));
  std::error_code error;
  const std::filesystem::file_status old = std::filesystem::status(path, error);
  if (std::filesystem::exists(old) && !std::filesystem::is_regular_file(old)) {
    return IoError(
        absl::StrCat(path, ": could not write: something that is not a file has this name"));
  }
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  if (allow_unnamed) {
    FileHandle file(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kPendingMode));
    // Publish needs /proc to give it a name.
    if (file.get() >= 0 && access(LinkTo(file).c_str(), F_OK) == 0) {
      return std::unique_ptr<PendingFile>(new PendingFile(path, temporary, std::move(file), false));
    }
  }
  FileHandle file(open(temporary.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, kPendingMode));
  if (file.get() < 0) return ErrnoError(path, "write", errno);
  return std::unique_ptr<PendingFile>(new PendingFile(path, temporary, std::move(file), true));
}

PendingFile::PendingFile(std::string path, std::string temporary, FileHandle file, bool named)
    : path_(std::move(path)),
      temporary_(std::move(temporary)),
      file_(std::move(file)),
      named_(named) {
  buffer_.reserve(kBufferBytes);
}

PendingFile::~PendingFile() {
  if (named_) unlink(temporary_.c_str());
}

absl::Status PendingFile::Write(int64_t offset, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t count = pwrite(file_.get(), bytes, size, offset);
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(path_, "write", errno);
    }
    MarkProgress();
    bytes += count;
    offset += count;
    size -= static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status PendingFile::WriteNext(const char* bytes, size_t size) {
  RETURN_IF_ERROR(Write(written_, bytes, size));
  written_ += static_cast<int64_t>(size);
  // The disk is to work while what follows is made, not to wait for the sync. Only a hint: where
  // it cannot be had, or fails, the sync does and tells all.
  if (written_ - handed_over_ >= kWritebackBytes) {
    sync_file_range(file_.get(), handed_over_, written_ - handed_over_, SYNC_FILE_RANGE_WRITE);
    handed_over_ = written_;
  }
  // One sync at the end could take minutes without a sign of progress, for which a watchdog ends
  // the job.
  if (written_ - synced_ < kSyncBytes) return absl::OkStatus();
  synced_ = written_;
  if (fdatasync(file_.get()) != 0) return ErrnoError(path_, "write", errno);
  MarkProgress();
  return absl::OkStatus();
}

absl::Status PendingFile::Flush() {
  RETURN_IF_ERROR(WriteNext(buffer_.data(), buffer_.size()));
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status PendingFile::Append(const void* bytes, size_t size) {
  const char* begin = static_cast<const char*>(bytes);
  if (buffer_.size() + size > kBufferBytes) RETURN_IF_ERROR(Flush());
  // In pieces, for the syncs between them.
  for (; size >= kBufferBytes; begin += kBufferBytes, size -= kBufferBytes)
    RETURN_IF_ERROR(WriteNext(begin, kBufferBytes));
  buffer_.insert(buffer_.end(), begin, begin + size);
  return absl::OkStatus();
}

absl::Status PendingFile::WriteAt(int64_t offset, const void* bytes, size_t size) {
  RETURN_IF_ERROR(Flush());
  return Write(offset, static_cast<const char*>(bytes), size);
}

absl::Status PendingFile::ReadAt(int64_t offset, void* bytes, size_t size) {
  RETURN_IF_ERROR(Flush());
  char* to = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t count = pread(file_.get(), to, size, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ErrnoError(path_, "read back", count == 0 ? EIO : errno);
    to += count;
    offset += count;
    size -= static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status PendingFile::Sync() {
  RETURN_IF_ERROR(Flush());
  if (fchmod(file_.get(), kMode & ~CurrentUmask()) != 0)
    return ErrnoError(path_, "set the permissions", errno);
  return fsync(file_.get()) == 0 ? absl::OkStatus() : ErrnoError(path_, "write", errno);
}

absl::Status PendingFile::Publish() {
  // linkat replaces nothing, rename does: so by way of a name of its own.
  if (!named_) {
    unlink(temporary_.c_str());
    if (linkat(AT_FDCWD, LinkTo(file_).c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW) !=
        0) {
      return ErrnoError(path_, "write", errno);
    }
    named_ = true;
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoError(path_, "write", errno);
  named_ = false;
  return absl::OkStatus();
}

absl::Status WriteLines(const std::vector<std::string>& lines, PendingFile* file) {
  for (const std::string& line : lines) {
    RETURN_IF_ERROR(file->Append(line.data(), line.size()));
    RETURN_IF_ERROR(file->Append("\n", 1));
  }
  RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(file->Publish());
  return SyncFolder(ParentFolder(file->path()));
}

}  // namespace hypermoe
