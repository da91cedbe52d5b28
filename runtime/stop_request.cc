#include "runtime/stop_request.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "parallel/steady_seconds.h"
#include "runtime/file_util.h"
#include "runtime/hashed_file.h"

namespace hypermoe {
namespace {

std::string StopPath(const std::string& run_dir) { return absl::StrCat(run_dir, "/stop"); }
std::string StoppedPath(const std::string& run_dir) { return absl::StrCat(run_dir, "/stopped"); }

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

absl::Status RemoveFile(const std::string& path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return ErrnoError(path, "remove the file", errno);
}

}  // namespace

StopSource StopFile(const std::string& run_dir) {
  return [path = StopPath(run_dir)] {
    return Exists(path) ? absl::StrCat("the file ", path) : std::string();
  };
}

StopSource TimeLimit(double minutes, double since) {
  return [minutes, end = since + 60 * minutes] {
    return SteadySeconds() < end ? std::string() : absl::StrCat("--max_minutes ", minutes);
  };
}

StopRequest::StopRequest(std::vector<StopSource> sources) : sources_(std::move(sources)) {}

bool StopRequest::Asked() {
  for (auto source = sources_.begin(); by_.empty() && source != sources_.end(); ++source) {
    by_ = (*source)();
  }
  return !by_.empty();
}

absl::Status ForgetStop(const std::string& run_dir) { return RemoveFile(StoppedPath(run_dir)); }

absl::Status RecordStop(const std::string& run_dir, const std::string& by, bool by_user) {
  if (!by_user && !Exists(StopPath(run_dir))) return ForgetStop(run_dir);
  // In this order: a job that dies in between has not lost the request.
  RETURN_IF_ERROR(WriteFileDurably(StoppedPath(run_dir), by + "\n"));
  return RemoveFile(StopPath(run_dir));
}

}  // namespace hypermoe
