// The files of a model folder that a stranger has made.
#pragma once

#include <memory>
#include <string>

#include "runtime/file_util.h"
#include "runtime/status.h"

namespace hypermoe {

// Maps the file `name` of the folder. A symbolic link may lead to a file within the folder, or, in
// a snapshot of Hugging Face's cache (DIR/snapshots/REVISION), to one in DIR/blobs; DataError for
// others, for a name that is not plain, and for a file that is not there. IoError if it cannot be
// read.
absl::StatusOr<std::shared_ptr<const MappedFile>> MapFolderFile(const std::string& folder,
                                                                const std::string& name);

// Whether the folder has an entry `name`, of whatever sort.
bool HasFolderFile(const std::string& folder, const std::string& name);

// A file in the folder that looks like a model in Python's pickle format, or "".
std::string FindPickle(const std::string& folder);

}  // namespace hypermoe
