// Files mapped into memory, folders, hashes of contents, and errors that say what the system said.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/status.h"

namespace hypermoe {

// IoError "PATH: could not ACTION: No space left on device", with the system's text for `error`
// (an errno).
absl::Status ErrnoError(const std::string& path, const std::string& action, int error);

// `text` from a file, fit for a message: control characters escaped, and cut after 200 bytes.
std::string Printable(const std::string& text);

// Whether a file that is looked up by this name in a folder cannot be outside of it.
bool IsPlainName(const std::string& name);

// Creates `path` and its missing parents, durably; permissions follow the umask.
absl::Status CreateFolders(const std::string& path);
// A folder that is being filled: CreatePrivateFolder makes it, for this user alone, and
// OpenFolderToOthers gives it the permissions that the umask allows.
absl::Status CreatePrivateFolder(const std::string& path);
absl::Status OpenFolderToOthers(const std::string& path);
// Makes the names in folder `path` durable.
absl::Status SyncFolder(const std::string& path);
// The folder that holds `path`: "." for a bare name.
std::string ParentFolder(const std::string& path);

// The permissions that this process takes from what it creates. Changes nothing, so that it may be
// asked on any thread.
mode_t CurrentUmask();

// Writes all of `text` to an open file, in whatever pieces the system takes it; `path` names it in
// errors.
absl::Status WriteAll(int descriptor, const std::string& path, const std::string& text);

// Size and XXH3-128 (32 hex digits) of a file's content.
struct FileDigest {
  int64_t bytes = 0;
  std::string xxh3_128;
};
FileDigest DigestOf(const void* data, size_t size);

// A regular file mapped read-only into memory. Errors, a missing file too, are IoError.
class MappedFile {
 public:
  enum class Links { kFollow, kRefuse };  // of a symbolic link as the last part of the path
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path,
                                                                Links links = Links::kFollow);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  const char* data() const { return data_; }  // null if the file is empty
  size_t size() const { return size_; }

 private:
  MappedFile(std::string path, const char* data, size_t size);

  std::string path_;
  const char* data_;
  size_t size_;
};

}  // namespace hypermoe
