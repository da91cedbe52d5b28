// The header of a safetensors file: which tensor is where. Knows nothing of LibTorch.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/status.h"

namespace hypermoe {

struct SafetensorsEntry {
  std::string dtype;  // "F32"
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // bytes, from the start of the data
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> tensors;
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // from the start of the file
};

// Bits of one element of `dtype`, or 0 if the format has no such type.
int SafetensorsBits(const std::string& dtype);

// Checks everything that can be checked without reading the data, as the reference implementation
// does, and that no name stands twice. `data` is the whole file, `path` its name for messages.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const std::string& path, const char* data,
                                                         uint64_t size);

// The bytes before the data: length and JSON, padded so that the data begins at a multiple of 8.
// InternalError if a name or a metadata text is not UTF-8. Tensors are written in the order of
// their offsets.
absl::StatusOr<std::string> SafetensorsHeaderBytes(const SafetensorsHeader& header);

}  // namespace hypermoe
