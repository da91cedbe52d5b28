#include "runtime/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/file_util.h"
#include "runtime/pending_file.h"

namespace hypermoe {
namespace {

using nlohmann::json;

using LastLine = MetricsLog::LastLine;

// Of the lines that stay.
struct KeptLines {
  LastLine last;
  std::vector<json> validations;
};

// A line, and its step and kind ("" for none); false if it is not an object with a step.
bool ReadLine(absl::string_view line, json* object, LastLine* read) {
  *object = json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!object->is_object() || !object->contains("step") || !(*object)["step"].is_number_integer())
    return false;
  read->step = (*object)["step"].get<int64_t>();
  const auto kind = object->find("kind");
  read->kind = kind != object->end() && kind->is_string() ? kind->get<std::string>() : "";
  return true;
}

absl::Status CopyLines(const std::string& path, absl::string_view rest, int64_t last_step,
                       PendingFile* kept, KeptLines* lines) {
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t newline = rest.find('\n');
    const absl::string_view line = rest.substr(0, newline);
    json object;
    LastLine read;
    const bool readable = ReadLine(line, &object, &read);
    // Only the last line can lack its newline: a job died while writing it.
    if (!readable && newline == absl::string_view::npos) break;
    if (!readable) {
      return DataError(
          absl::StrCat(Printable(path), ", line ", number,
                       ": not a JSON object with an integer \"step\"; repair or remove the line"));
    }
    if (read.step <= last_step) {
      lines->last = read;
      if (read.kind == "validation") lines->validations.push_back(std::move(object));
      RETURN_IF_ERROR(kept->Append(line.data(), line.size()));
      RETURN_IF_ERROR(kept->Append("\n", 1));
    }
    rest.remove_prefix(newline == absl::string_view::npos ? rest.size() : newline + 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<KeptLines> ReplaceByEarlierLines(const std::string& path, int64_t last_step) {
  KeptLines lines;
  ASSIGN_OR_RETURN(const std::unique_ptr<PendingFile> kept, PendingFile::Create(path));
  if (last_step > 0 && access(path.c_str(), F_OK) == 0) {
    ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> old, MappedFile::Open(path));
    RETURN_IF_ERROR(CopyLines(path, {old->data(), old->size()}, last_step, kept.get(), &lines));
  }
  RETURN_IF_ERROR(kept->Sync());
  RETURN_IF_ERROR(kept->Publish());
  RETURN_IF_ERROR(SyncFolder(ParentFolder(path)));
  return lines;
}

class AppendingLog : public MetricsLog {
 public:
  AppendingLog(std::string path, FileHandle file, KeptLines kept)
      : path_(std::move(path)), file_(std::move(file)), kept_(std::move(kept)) {}

  const LastLine& kept() const override { return kept_.last; }
  const std::vector<json>& kept_validations() const override { return kept_.validations; }

  absl::Status Write(const json& line) override {
    if (!line.is_object() || !line.contains("kind") || !line.contains("step")) {
      return InternalError(
          absl::StrCat("a line of ", path_, " must be an object with \"kind\" and \"step\""));
    }
    // One write a line: a reader that follows the file sees whole lines.
    const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    return WriteAll(file_.get(), path_, text);
  }

  const std::string& path() const override { return path_; }

 private:
  std::string path_;
  FileHandle file_;
  KeptLines kept_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(const std::string& run_dir,
                                                             int64_t last_step) {
  const std::string path = absl::StrCat(run_dir, "/metrics.jsonl");
  ASSIGN_OR_RETURN(KeptLines kept, ReplaceByEarlierLines(path, last_step));
  FileHandle file(open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (file.get() < 0) return ErrnoError(path, "open the file", errno);
  return std::make_unique<AppendingLog>(path, std::move(file), std::move(kept));
}

}  // namespace hypermoe
