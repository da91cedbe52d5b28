#include "tests/support/event_file_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

template <typename Number>
Number NumberAt(const std::string& bytes, size_t position) {
  Number number{};
  if (position + sizeof(number) > bytes.size()) {
    ADD_FAILURE() << "cut off at byte " << position;
    return number;
  }
  std::memcpy(&number, bytes.data() + position, sizeof(number));  // little-endian machines only
  return number;
}

uint32_t Masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

// The fields of a protobuf message, in order.
struct WireField {
  uint64_t number = 0;
  uint64_t varint = 0;
  std::string bytes;  // of a text or message, or of a fixed number
};

uint64_t Varint(const std::string& bytes, size_t* position) {
  uint64_t value = 0;
  for (int shift = 0; *position < bytes.size(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes[(*position)++]);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  ADD_FAILURE() << "a varint is cut off";
  return 0;
}

std::vector<WireField> Fields(const std::string& message) {
  std::vector<WireField> fields;
  for (size_t position = 0; position < message.size();) {
    const uint64_t key = Varint(message, &position);
    WireField field;
    field.number = key >> 3;
    size_t size = 0;
    switch (key & 7) {
      case 0:
        field.varint = Varint(message, &position);
        break;
      case 1:
        size = 8;
        break;
      case 2:
        size = Varint(message, &position);
        break;
      case 5:
        size = 4;
        break;
      default:
        ADD_FAILURE() << "wire type " << (key & 7);
        return fields;
    }
    field.bytes = message.substr(position, size);
    position += size;
    fields.push_back(field);
  }
  return fields;
}

void ReadValue(const std::string& message, RecordedEvent* event) {
  std::string tag;
  float value = 0;
  for (const WireField& field : Fields(message)) {
    if (field.number == 1) tag = field.bytes;
    if (field.number == 2) value = NumberAt<float>(field.bytes, 0);
  }
  EXPECT_TRUE(event->values.emplace(tag, value).second) << tag << " twice";
}

RecordedEvent ReadEvent(const std::string& message) {
  RecordedEvent event;
  for (const WireField& field : Fields(message)) {
    if (field.number == 1) event.wall_time = NumberAt<double>(field.bytes, 0);
    if (field.number == 2) event.step = static_cast<int64_t>(field.varint);
    if (field.number == 3) event.file_version = field.bytes;
    if (field.number == 5) {
      for (const WireField& value : Fields(field.bytes)) ReadValue(value.bytes, &event);
    }
    if (field.number == 7) {
      for (const WireField& log : Fields(field.bytes)) {
        if (log.number == 1) event.session_start = log.varint == 1;
      }
    }
  }
  return event;
}

}  // namespace

uint32_t BitwiseCrc32c(const std::string& data) {
  uint32_t crc = 0xffffffffu;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

std::vector<RecordedEvent> ReadEvents(const std::string& path) {
  const std::string bytes = ReadFile(path);
  std::vector<RecordedEvent> events;
  for (size_t position = 0; position < bytes.size();) {
    const auto size = static_cast<size_t>(NumberAt<uint64_t>(bytes, position));
    EXPECT_EQ(NumberAt<uint32_t>(bytes, position + 8),
              Masked(BitwiseCrc32c(bytes.substr(position, 8))));
    if (position + 16 + size > bytes.size()) {
      ADD_FAILURE() << path << ": the record at byte " << position << " is cut off";
      break;
    }
    const std::string data = bytes.substr(position + 12, size);
    EXPECT_EQ(NumberAt<uint32_t>(bytes, position + 12 + size), Masked(BitwiseCrc32c(data)));
    events.push_back(ReadEvent(data));
    position += 16 + size;
  }
  return events;
}

std::vector<std::string> EventFiles(const std::string& run_dir) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir)) {
    if (entry.path().filename().string().rfind("events.out.tfevents.", 0) == 0)
      paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::map<std::string, std::map<int64_t, float>> ShownPoints(const std::string& run_dir) {
  std::map<std::string, std::map<int64_t, float>> shown;
  for (const std::string& path : EventFiles(run_dir)) {
    for (const RecordedEvent& event : ReadEvents(path)) {
      for (auto& [tag, points] : shown) {
        if (event.session_start) points.erase(points.lower_bound(event.step), points.end());
      }
      for (const auto& [tag, value] : event.values) {
        EXPECT_TRUE(shown[tag].emplace(event.step, value).second) << tag << " at " << event.step;
      }
    }
  }
  return shown;
}

}  // namespace hypermoe
