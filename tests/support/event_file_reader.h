// Reads TensorBoard event files without any of the code that writes them: TFRecord framing and
// protobuf's wire format by hand, as the public descriptions give them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hypermoe {

struct RecordedEvent {
  double wall_time = 0;
  int64_t step = 0;
  std::string file_version;             // of tensorflow.Event
  bool session_start = false;           // a session log with status START
  std::map<std::string, float> values;  // of its summary, by tag
};

// All events of the file; adds a test failure where its bytes are not as they must be.
std::vector<RecordedEvent> ReadEvents(const std::string& path);

// The event files of a run, in the order of their names.
std::vector<std::string> EventFiles(const std::string& run_dir);

// What TensorBoard shows of a run: by tag, the value of each step, after all files were read in
// order and each session start has dropped the points from its step on. A step that is there twice
// is a test failure.
std::map<std::string, std::map<int64_t, float>> ShownPoints(const std::string& run_dir);

// CRC-32C (RFC 3720, B.4), bit by bit.
uint32_t BitwiseCrc32c(const std::string& data);

}  // namespace hypermoe
