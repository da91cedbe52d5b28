#include "runtime/hashed_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"

namespace hypermoe {
namespace {

// PendingFile copies a piece into its buffer: small pieces keep a large tensor from being held
// twice.
constexpr size_t kPieceBytes = 1 << 20;

}  // namespace

HashedFile::HashedFile(std::unique_ptr<PendingFile> file)
    : file_(std::move(file)), hash_(XXH3_createState()) {
  XXH3_128bits_reset(hash_.get());
}

absl::StatusOr<std::unique_ptr<HashedFile>> HashedFile::Create(const std::string& path) {
  struct stat info;
  const std::string folder = ParentFolder(path);
  if (stat(folder.c_str(), &info) != 0) return ErrnoError(folder, "write into the folder", errno);
  ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> file, PendingFile::Create(path));
  return std::unique_ptr<HashedFile>(new HashedFile(std::move(file)));
}

absl::Status HashedFile::Write(const void* data, size_t size) {
  XXH3_128bits_update(hash_.get(), data, size);
  const char* next = static_cast<const char*>(data);
  for (size_t done = 0; done < size; done += kPieceBytes) {
    RETURN_IF_ERROR(file_->Append(next + done, std::min(kPieceBytes, size - done)));
  }
  return absl::OkStatus();
}

absl::StatusOr<FileDigest> HashedFile::Commit() {
  RETURN_IF_ERROR(file_->Sync());
  RETURN_IF_ERROR(file_->Publish());
  const XXH128_hash_t hash = XXH3_128bits_digest(hash_.get());
  return FileDigest{file_->size(), absl::StrFormat("%016x%016x", hash.high64, hash.low64)};
}

absl::Status WriteFileDurably(const std::string& path, const std::string& content) {
  ASSIGN_OR_RETURN(const std::unique_ptr<PendingFile> file, PendingFile::Create(path));
  RETURN_IF_ERROR(file->Append(content.data(), content.size()));
  RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(file->Publish());
  return SyncFolder(ParentFolder(path));
}

}  // namespace hypermoe
