// The scalars of a run as a TensorBoard event file, run_dir/events.out.tfevents.SECONDS.HOST.PID:
// TFRecords of configs/tensorboard.proto.
//
// A process writes a file of its own; TensorBoard reads the files of a folder in the order of their
// names, which is that of the processes. The file begins with a session log "START at step n", at
// which TensorBoard forgets all points of older files from step n on: steps that a resumed run does
// again are not shown twice.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>

#include "configs/tensorboard.pb.h"
#include "runtime/input_file.h"
#include "runtime/status.h"

namespace hypermoe {

class EventFile {
 public:
  // Creates a file in `run_dir`, which must exist, for steps from `first_step` on.
  static absl::StatusOr<std::unique_ptr<EventFile>> Create(const std::string& run_dir,
                                                           int64_t first_step);

  // Writes a line of metrics.jsonl (runtime/metrics_log.h): each number in it but the step becomes
  // a point KIND/NAME, such as train/loss, at its step. Handed to the operating system at once.
  absl::Status Write(const nlohmann::json& line);
  const std::string& path() const { return path_; }

 private:
  EventFile(std::string path, FileHandle file) : path_(std::move(path)), file_(std::move(file)) {}
  absl::Status WriteEvent(tensorboard::Event* event);

  std::string path_;
  FileHandle file_;
};

// A TFRecord: length, masked CRC-32C of the length, `data`, masked CRC-32C of it; numbers are
// little-endian.
std::string TfRecord(const std::string& data);

}  // namespace hypermoe
