#include "runtime/trace_file.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

using nlohmann::json;

constexpr char kBegin[] = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
constexpr char kEnd[] = "\n]}\n";

int64_t Nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

// As the format counts, from whole nanoseconds: what lies within another event stays there.
double Microseconds(int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e3; }

const char* CategoryName(TraceEvent::Category category) {
  return category == TraceEvent::Category::kPhase ? "phase" : "collective";
}

json Metadata(int rank, int thread, const char* what, json args) {
  return {{"ph", "M"}, {"pid", rank}, {"tid", thread}, {"name", what}, {"args", std::move(args)}};
}

// Names of process and threads; the order of processes is that of the ranks.
std::vector<json> Names(int rank) {
  return {Metadata(rank, 0, "process_name", {{"name", absl::StrCat("rank ", rank)}}),
          Metadata(rank, 0, "process_sort_index", {{"sort_index", rank}}),
          Metadata(rank, 0, "thread_name", {{"name", "phases"}}),
          Metadata(rank, 1, "thread_name", {{"name", "collectives"}})};
}

json Complete(const TraceEvent& event, int rank, double origin) {
  const int64_t start = Nanoseconds(event.start - origin);
  const int64_t end = Nanoseconds(event.end - origin);
  json args = json::object();
  if (event.bytes) args["bytes"] = *event.bytes;
  if (!event.group.empty()) args["group"] = event.group;
  return {{"ph", "X"},
          {"pid", rank},
          {"tid", static_cast<int>(event.category)},
          {"cat", CategoryName(event.category)},
          {"name", event.name},
          {"ts", Microseconds(start)},
          {"dur", Microseconds(end - start)},
          {"args", std::move(args)}};
}

json LeftOut(int64_t count, int rank, double microseconds) {
  return {{"ph", "i"},
          {"s", "p"},
          {"pid", rank},
          {"tid", 0},
          {"name", absl::StrCat(count, " events left out from here on")},
          {"ts", microseconds},
          {"args", {{"events_left_out", count}}}};
}

// One event a line.
absl::Status Append(const json& event, bool first, PendingFile& file) {
  const std::string line = absl::StrCat(
      first ? "\n" : ",\n",
      // Bytes that are not UTF-8 become U+FFFD: a name must not cost the file.
      event.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace));
  return file.Append(line.data(), line.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<TraceFile>> TraceFile::Create(const std::string& path, int rank,
                                                             double origin, int64_t max_events) {
  ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> file, PendingFile::Create(path));
  return std::unique_ptr<TraceFile>(new TraceFile(std::move(file), rank, origin, max_events));
}

void TraceFile::Add(TraceEvent event) {
  if (static_cast<int64_t>(events_.size()) < max_events_) {
    events_.push_back(std::move(event));
    return;
  }
  first_left_out_ = left_out_ == 0 ? event.start : std::min(first_left_out_, event.start);
  ++left_out_;
}

absl::Status TraceFile::Close() {
  RETURN_IF_ERROR(file_->Append(kBegin, sizeof(kBegin) - 1));
  bool first = true;
  for (const json& name : Names(rank_)) {
    RETURN_IF_ERROR(Append(name, first, *file_));
    first = false;
  }
  for (const TraceEvent& event : events_) {
    RETURN_IF_ERROR(Append(Complete(event, rank_, origin_), first, *file_));
  }
  if (left_out_ > 0) {
    const double microseconds = Microseconds(Nanoseconds(first_left_out_ - origin_));
    RETURN_IF_ERROR(Append(LeftOut(left_out_, rank_, microseconds), first, *file_));
  }
  RETURN_IF_ERROR(file_->Append(kEnd, sizeof(kEnd) - 1));
  RETURN_IF_ERROR(file_->Sync());
  RETURN_IF_ERROR(file_->Publish());
  return SyncFolder(ParentFolder(file_->path()));
}

}  // namespace hypermoe
