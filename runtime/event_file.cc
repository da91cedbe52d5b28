#include "runtime/event_file.h"

#include <fcntl.h>
#include <isa-l/crc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/file_util.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "events.out.tfevents.";
// Makes TensorBoard forget by session logs, not whenever a step is smaller than the one before.
constexpr char kFileVersion[] = "brain.Event:2";
constexpr size_t kSecondsDigits = 10;

double SecondsSince1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The time in the names of the files that are there, the largest; 0 without any.
absl::StatusOr<int64_t> NewestTime(const std::string& run_dir) {
  std::error_code error;
  int64_t newest = 0;
  for (fs::directory_iterator entry(run_dir, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    int64_t seconds = 0;
    if (absl::StartsWith(name, kPrefix) &&
        absl::SimpleAtoi(name.substr(sizeof(kPrefix) - 1, kSecondsDigits), &seconds)) {
      newest = std::max(newest, seconds);
    }
  }
  if (error) return ErrnoError(run_dir, "list the folder", error.value());
  return newest;
}

template <typename Number>
void AppendLittleEndian(Number number, std::string* text) {
  for (size_t i = 0; i < sizeof(Number); ++i) {
    text->push_back(static_cast<char>(number >> (8 * i) & 0xff));
  }
}

// CRC-32C, rotated and shifted as TFRecords want it: a CRC of data that contains CRCs is weak.
uint32_t MaskedCrc(const std::string& data) {
  std::string copy = data;  // ISA-L takes a pointer to non-const bytes
  const uint32_t crc = ~crc32_iscsi(reinterpret_cast<unsigned char*>(copy.data()),
                                    static_cast<int>(copy.size()), 0xffffffffu);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

}  // namespace

std::string TfRecord(const std::string& data) {
  std::string record;
  AppendLittleEndian(uint64_t{data.size()}, &record);
  AppendLittleEndian(MaskedCrc(record), &record);
  record += data;
  AppendLittleEndian(MaskedCrc(data), &record);
  return record;
}

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Create(const std::string& run_dir,
                                                             int64_t first_step) {
  ASSIGN_OR_RETURN(const int64_t newest, NewestTime(run_dir));
  // After all others, even if the clock went back or two processes start within a second.
  const int64_t seconds = std::max(static_cast<int64_t>(SecondsSince1970()), newest + 1);
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  std::string path = absl::StrFormat("%s/%s%0*d.%s.%d", run_dir, kPrefix,
                                     static_cast<int>(kSecondsDigits), seconds, host, getpid());
  FileHandle file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666));
  if (file.get() < 0) return ErrnoError(path, "create the file", errno);
  std::unique_ptr<EventFile> events(new EventFile(std::move(path), std::move(file)));
  tensorboard::Event version;
  version.set_file_version(kFileVersion);
  RETURN_IF_ERROR(events->WriteEvent(&version));
  tensorboard::Event start;
  start.set_step(first_step);
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  RETURN_IF_ERROR(events->WriteEvent(&start));
  return events;
}

absl::Status EventFile::Write(const nlohmann::json& line) {
  tensorboard::Event event;
  event.set_step(line.at("step").get<int64_t>());
  for (const auto& [name, value] : line.items()) {
    if (!value.is_number() || name == "step") continue;
    tensorboard::Summary::Value& point = *event.mutable_summary()->add_value();
    point.set_tag(absl::StrCat(line.at("kind").get<std::string>(), "/", name));
    point.set_simple_value(value.get<float>());
  }
  return WriteEvent(&event);
}

absl::Status EventFile::WriteEvent(tensorboard::Event* event) {
  event->set_wall_time(SecondsSince1970());
  // One write a record: a reader that follows the file sees whole ones.
  return WriteAll(file_.get(), path_, TfRecord(event->SerializeAsString()));
}

}  // namespace hypermoe
