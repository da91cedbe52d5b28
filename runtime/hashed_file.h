// Whole files, written durably, and the digests of their chunks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/file_util.h"
#include "runtime/pending_file.h"
#include "runtime/status.h"
#include "runtime/xxh3.h"

namespace hypermoe {

// Each chunk has a digest of its own, so that who reads a part of a file checks only that.
constexpr int64_t kChunkBytes = int64_t{4} << 20;

// A file's size, and the XXH3-128 of each `chunk_bytes` of its content, the last of what remains,
// as 32 hex digits.
struct ChunkedDigest {
  int64_t bytes = 0;
  int64_t chunk_bytes = kChunkBytes;
  std::vector<std::string> chunks;
};

// A PendingFile that is hashed as it is written. Its folder must exist: where it does not, on
// another machine perhaps, to create it would hide that the file system is not shared.
class HashedFile {
 public:
  static absl::StatusOr<std::unique_ptr<HashedFile>> Create(const std::string& path,
                                                            int64_t chunk_bytes = kChunkBytes);
  absl::Status Write(const void* data, size_t size);
  // Makes the content durable and gives it its name. SyncFolder then makes the name durable.
  absl::StatusOr<ChunkedDigest> Commit();

 private:
  HashedFile(std::unique_ptr<PendingFile> file, int64_t chunk_bytes);
  void EndChunk();

  std::unique_ptr<PendingFile> file_;
  Xxh3 hash_;  // of the chunk that is being written
  size_t in_chunk_ = 0;
  ChunkedDigest digest_;
};

// SHA-256 as 64 hex digits.
std::string Sha256Digest(const void* data, size_t size);

// Makes `content` the file `path`, durably: whoever looks sees the old content or the new.
absl::Status WriteFileDurably(const std::string& path, const std::string& content);

}  // namespace hypermoe
