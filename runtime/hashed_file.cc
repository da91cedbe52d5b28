#include "runtime/hashed_file.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"

namespace hypermoe {
namespace {

// A piece that has just been hashed is still in the processor's cache when it is copied for the
// disk, so that hashing costs no further pass over memory.
constexpr size_t kPieceBytes = 1 << 20;

}  // namespace

HashedFile::HashedFile(std::unique_ptr<PendingFile> file, int64_t chunk_bytes)
    : file_(std::move(file)) {
  digest_.chunk_bytes = chunk_bytes;
}

absl::StatusOr<std::unique_ptr<HashedFile>> HashedFile::Create(const std::string& path,
                                                               int64_t chunk_bytes) {
  struct stat info;
  const std::string folder = ParentFolder(path);
  if (stat(folder.c_str(), &info) != 0) return ErrnoError(folder, "write into the folder", errno);
  ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> file, PendingFile::Create(path));
  return std::unique_ptr<HashedFile>(new HashedFile(std::move(file), chunk_bytes));
}

absl::Status HashedFile::Write(const void* data, size_t size) {
  const auto chunk_bytes = static_cast<size_t>(digest_.chunk_bytes);
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const size_t piece = std::min({size, kPieceBytes, chunk_bytes - in_chunk_});
    hash_.Update(next, piece);
    RETURN_IF_ERROR(file_->Append(next, piece));
    in_chunk_ += piece;
    next += piece;
    size -= piece;
    if (in_chunk_ == chunk_bytes) EndChunk();
  }
  return absl::OkStatus();
}

void HashedFile::EndChunk() {
  digest_.chunks.push_back(hash_.Digest());
  in_chunk_ = 0;
}

absl::StatusOr<ChunkedDigest> HashedFile::Commit() {
  if (in_chunk_ > 0) EndChunk();
  RETURN_IF_ERROR(file_->Sync());
  RETURN_IF_ERROR(file_->Publish());
  digest_.bytes = file_->size();
  return digest_;
}

std::string Sha256Digest(const void* data, size_t size) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  // Should it fail, the digest stays zeros: what has it or is compared with it is refused.
  EVP_Digest(data, size, reinterpret_cast<unsigned char*>(digest.data()), nullptr, EVP_sha256(),
             nullptr);
  return absl::BytesToHexString(digest);
}

absl::Status WriteFileDurably(const std::string& path, const std::string& content) {
  ASSIGN_OR_RETURN(const std::unique_ptr<PendingFile> file, PendingFile::Create(path));
  RETURN_IF_ERROR(file->Append(content.data(), content.size()));
  RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(file->Publish());
  return SyncFolder(ParentFolder(path));
}

}  // namespace hypermoe
