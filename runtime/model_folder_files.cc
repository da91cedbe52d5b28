#include "runtime/model_folder_files.h"

#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

// Both without links in them.
bool IsWithin(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

bool MayUse(const fs::path& target, const fs::path& folder) {
  if (IsWithin(target, folder)) return true;
  return folder.parent_path().filename() == "snapshots" &&
         IsWithin(target, folder.parent_path().parent_path() / "blobs");
}

}  // namespace

bool HasFolderFile(const std::string& folder, const std::string& name) {
  std::error_code error;
  return fs::symlink_status(fs::path(folder) / name, error).type() != fs::file_type::not_found;
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MapFolderFile(const std::string& folder,
                                                                const std::string& name) {
  const auto refuse = [&](const std::string& reason) {
    return DataError(absl::StrCat("model folder ", Printable(folder), ": file '", Printable(name),
                                  "' ", reason));
  };
  if (!IsPlainName(name)) {
    return refuse(
        "is not a plain name: files of a model folder are in it, so their names have no "
        "'/' and are not '..'");
  }
  std::error_code error;
  const fs::path path = fs::path(folder) / name;
  const fs::path target = fs::canonical(path, error);
  if (error) return refuse(absl::StrCat("is not there: ", error.message()));
  if (!fs::is_regular_file(target, error)) return refuse("is not a regular file");
  const fs::path real_folder = fs::canonical(folder, error);
  if (error || !MayUse(target, real_folder)) {
    return refuse(
        "is a symbolic link out of the folder, which is not followed: put the file there");
  }
  // The name as given is the one for messages, unless it is a link.
  return MappedFile::Open(fs::is_symlink(path, error) ? target.string() : path.string(),
                          MappedFile::Links::kRefuse);
}

std::string FindPickle(const std::string& folder) {
  static const std::set<std::string> suffixes = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"};
  std::set<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (suffixes.contains(entry.path().extension().string()))
      found.insert(entry.path().filename().string());
  }
  return found.empty() ? "" : *found.begin();
}

}  // namespace hypermoe
