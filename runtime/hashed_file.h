// Whole files, written durably, and their hashes.
#pragma once

#include <xxhash.h>

#include <memory>
#include <string>

#include "runtime/file_util.h"
#include "runtime/pending_file.h"
#include "runtime/status.h"

namespace hypermoe {

// A PendingFile that is hashed as it is written. Its folder must exist: where it does not, on
// another machine perhaps, to create it would hide that the file system is not shared.
class HashedFile {
 public:
  static absl::StatusOr<std::unique_ptr<HashedFile>> Create(const std::string& path);
  absl::Status Write(const void* data, size_t size);
  // Makes the content durable and gives it its name. SyncFolder then makes the name durable.
  absl::StatusOr<FileDigest> Commit();

 private:
  explicit HashedFile(std::unique_ptr<PendingFile> file);

  struct HashDeleter {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<PendingFile> file_;
  std::unique_ptr<XXH3_state_t, HashDeleter> hash_;
};

// Makes `content` the file `path`, durably: whoever looks sees the old content or the new.
absl::Status WriteFileDurably(const std::string& path, const std::string& content);

}  // namespace hypermoe
