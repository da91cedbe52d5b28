// Reads and writes safetensors files (https://github.com/huggingface/safetensors): an 8-byte
// little-endian header length, a JSON header of names, dtypes, shapes and offsets, then the data.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/parameter.h"
#include "runtime/file_util.h"
#include "runtime/hashed_file.h"
#include "runtime/status.h"
#include "runtime/tensor_source.h"

namespace hypermoe {

// A file mapped into memory. The whole header is checked on opening (sizes before any allocation,
// offsets contiguous and covering the file exactly, no duplicate names); errors are DataError
// (IoError if the file cannot be opened) and name file and tensor.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);
  // Of a file that is mapped already.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(
      std::shared_ptr<const MappedFile> file);
  virtual ~SafetensorsFile() = default;
  virtual std::vector<std::string> names() const = 0;  // sorted
  virtual bool contains(const std::string& name) const = 0;
  // DataError as Get. Reads nothing but the header.
  virtual absl::StatusOr<TensorEntry> Entry(const std::string& name) const = 0;
  // A tensor that shares the mapping's memory and keeps the file open; never write to it. (A copy
  // where the file does not align it to its element size.) DataError: no such tensor, or one that
  // LibTorch has no type for.
  virtual absl::StatusOr<at::Tensor> Get(const std::string& name) const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
  // Where a tensor's data lies, in bytes of the file: [first, second). DataError: no such tensor.
  virtual absl::StatusOr<std::pair<int64_t, int64_t>> Range(const std::string& name) const = 0;
};

// The format's name of a dtype ("F32"), or "" if files cannot hold it here.
std::string SafetensorsDtype(c10::ScalarType dtype);
// The inverse; Undefined for other names.
c10::ScalarType DtypeOfSafetensors(const std::string& name);

// Writes the tensors `names` of `source` (float64, float32, float16, bfloat16, int64, int32, int16,
// int8, uint8 or bool) to `path`, one in memory at a time, and makes the content durable. An older
// file of that name is replaced only by a complete one. Returns what was written, digested by
// chunks of `chunk_bytes`.
absl::StatusOr<ChunkedDigest> WriteSafetensors(const std::string& path,
                                               const std::vector<std::string>& names,
                                               const TensorSource& source,
                                               const std::map<std::string, std::string>& metadata,
                                               int64_t chunk_bytes = kChunkBytes);
// The same for tensors in memory, on the CPU.
absl::StatusOr<ChunkedDigest> WriteSafetensors(const std::string& path,
                                               const std::vector<NamedTensor>& tensors,
                                               const std::map<std::string, std::string>& metadata,
                                               int64_t chunk_bytes = kChunkBytes);

// Whether WriteSafetensors puts tensor `a` before `b` in a file: large elements first, then by
// name. Every tensor is then aligned, as the reference writes it.
bool StandsBefore(const std::string& a, c10::ScalarType a_dtype, const std::string& b,
                  c10::ScalarType b_dtype);

}  // namespace hypermoe
