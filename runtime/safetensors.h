// Reads and writes safetensors files (https://github.com/huggingface/safetensors): an 8-byte little-endian header length, a
// JSON header of names, dtypes, shapes and offsets, then the data.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/parameter.h"
#include "runtime/status.h"

namespace hypermoe {

// A file mapped into memory. The whole header is checked on opening (sizes before any allocation, offsets contiguous and
// covering the file exactly, no duplicate names); errors are DataError and name file and tensor.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);
  virtual ~SafetensorsFile() = default;
  virtual std::vector<std::string> names() const = 0;
  virtual bool contains(const std::string& name) const = 0;
  // A tensor that shares the mapping's memory and keeps the file open; never write to it. NotFound: DataError.
  virtual absl::StatusOr<at::Tensor> Get(const std::string& name) const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
};

// Writes `tensors` (CPU; float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8 or bool) to `path` and
// makes it durable (fsync). On failure `path` is removed.
absl::Status WriteSafetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace hypermoe
