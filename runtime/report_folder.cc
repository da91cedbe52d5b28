#include "runtime/report_folder.h"

#include <cerrno>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/file_util.h"
#include "runtime/pending_file.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMarkWithin = 2000;  // bytes of index.html

bool IsReportOf(const std::string& folder, const std::string& program) {
  const std::string path = folder + "/index.html";
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;
  const absl::StatusOr<std::string> start = ReadSmallFile(path, kMarkWithin);
  return start.ok() && absl::StrContains(*start, GeneratorTag(program));
}

bool IsPartOfReport(const std::string& name) {
  return absl::EndsWith(name, ".svg") || absl::EndsWith(name, ".csv");
}

absl::StatusOr<std::unique_ptr<PendingFile>> Prepare(const std::string& path,
                                                     const std::string& content) {
  ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> file, PendingFile::Create(path));
  RETURN_IF_ERROR(file->Append(content.data(), content.size()));
  RETURN_IF_ERROR(file->Sync());
  return file;
}

}  // namespace

void ReportFolder::Figure(const std::string& name, const std::string& svg,
                          const std::string& caption) {
  Picture(name, svg);
  page_.Figure(svg, caption);
}

absl::Status ReportFolder::Check(const std::string& output, const std::string& program) {
  std::error_code error;
  const fs::path folder = fs::absolute(output, error).lexically_normal();
  for (fs::path above = folder; above.has_relative_path(); above = above.parent_path()) {
    if (!IsCheckpointFolder(above.string())) continue;
    return UsageError(absl::StrCat("--output ", Printable(output), " lies in the checkpoint ",
                                   Printable(above.string()),
                                   ", which a further file would damage: give another folder"));
  }
  const fs::file_status status = fs::status(output, error);
  if (status.type() == fs::file_type::not_found) return absl::OkStatus();
  if (fs::is_directory(status) && (fs::is_empty(output, error) || IsReportOf(output, program)))
    return absl::OkStatus();
  return UsageError(absl::StrCat("--output ", Printable(output),
                                 " is there already and not a report of `", program,
                                 "`: give another folder, or remove it"));
}

absl::Status ReportFolder::Write(const std::string& output) const {
  RETURN_IF_ERROR(Check(output, program_));
  RETURN_IF_ERROR(CreateFolders(output));
  std::vector<std::unique_ptr<PendingFile>> pending;
  for (const auto& [name, content] : files_) {
    ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> file,
                     Prepare(absl::StrCat(output, "/", name), content));
    pending.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> index,
                   Prepare(output + "/index.html", page_.Finish()));
  for (const auto& file : pending) RETURN_IF_ERROR(file->Publish());
  RETURN_IF_ERROR(index->Publish());
  std::error_code error;
  std::vector<fs::path> old;
  for (const fs::directory_entry& entry : fs::directory_iterator(output, error)) {
    const std::string name = entry.path().filename().string();
    if (IsPartOfReport(name) && files_.count(name) == 0) old.push_back(entry.path());
  }
  for (const fs::path& path : old) {
    if (!fs::remove(path, error) && error)
      return ErrnoError(path.string(), "remove the file", error.value());
  }
  return SyncFolder(output);
}

}  // namespace hypermoe
