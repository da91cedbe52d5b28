#include "runtime/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/TensorOptions.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/safetensors_header.h"

namespace hypermoe {
namespace {

struct DtypeName {
  c10::ScalarType dtype;
  const char* name;
};
constexpr std::array<DtypeName, 10> kDtypes = {{
    {c10::ScalarType::Double, "F64"},
    {c10::ScalarType::Float, "F32"},
    {c10::ScalarType::Half, "F16"},
    {c10::ScalarType::BFloat16, "BF16"},
    {c10::ScalarType::Long, "I64"},
    {c10::ScalarType::Int, "I32"},
    {c10::ScalarType::Short, "I16"},
    {c10::ScalarType::Char, "I8"},
    {c10::ScalarType::Byte, "U8"},
    {c10::ScalarType::Bool, "BOOL"},
}};

// As LibTorch wants sizes: also the strides of a tensor without elements must fit into 63 bits.
bool ToSizes(const std::vector<uint64_t>& shape, std::vector<int64_t>* sizes) {
  int64_t stride = 1;
  for (const uint64_t dim : shape) {
    if (dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
    sizes->push_back(static_cast<int64_t>(dim));
    if (__builtin_mul_overflow(stride, std::max<int64_t>(sizes->back(), 1), &stride)) return false;
  }
  return true;
}

class MappedSafetensors : public SafetensorsFile {
 public:
  MappedSafetensors(std::shared_ptr<const MappedFile> file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, entry] : header_.tensors) names.push_back(name);
    return names;
  }

  bool contains(const std::string& name) const override { return header_.tensors.contains(name); }
  const std::map<std::string, std::string>& metadata() const override { return header_.metadata; }

  absl::StatusOr<TensorEntry> Entry(const std::string& name) const override {
    const auto found = header_.tensors.find(name);
    if (found == header_.tensors.end()) return Error(name, "is not in the file");
    const SafetensorsEntry& entry = found->second;
    TensorEntry result;
    result.dtype = DtypeOfSafetensors(entry.dtype);
    if (result.dtype == c10::ScalarType::Undefined)
      return Error(name, absl::StrCat("has dtype ", entry.dtype, ", which is not supported"));
    if (!ToSizes(entry.shape, &result.shape)) return Error(name, "has a shape beyond 63 bits");
    return result;
  }

  absl::StatusOr<std::pair<int64_t, int64_t>> Range(const std::string& name) const override {
    const auto found = header_.tensors.find(name);
    if (found == header_.tensors.end()) return Error(name, "is not in the file");
    return std::pair(static_cast<int64_t>(header_.data_begin + found->second.begin),
                     static_cast<int64_t>(header_.data_begin + found->second.end));
  }

  absl::StatusOr<at::Tensor> Get(const std::string& name) const override {
    ASSIGN_OR_RETURN(const TensorEntry tensor_entry, Entry(name));
    const SafetensorsEntry& entry = header_.tensors.at(name);
    const char* begin = file_->data() + header_.data_begin + entry.begin;
    const char* end = file_->data() + header_.data_begin + entry.end;
    // Any other byte as a C++ bool is undefined behaviour.
    if (tensor_entry.dtype == c10::ScalarType::Bool &&
        std::any_of(begin, end, [](unsigned char c) { return c > 1; })) {
      return Error(name, "has dtype BOOL and bytes other than 0 and 1");
    }
    const auto tensor = at::from_blob(
        const_cast<char*>(begin), tensor_entry.shape, [file = file_](void*) {},
        c10::TensorOptions().dtype(tensor_entry.dtype));
    if (reinterpret_cast<uintptr_t>(begin) % c10::elementSize(tensor_entry.dtype) == 0)
      return tensor;
    // Typed access needs alignment, which the format does not promise.
    const at::Tensor copy = at::empty(tensor_entry.shape, tensor.options());
    std::memcpy(copy.mutable_data_ptr(), begin, end - begin);
    return copy;
  }

 private:
  absl::Status Error(const std::string& name, const std::string& problem) const {
    return DataError(
        absl::StrCat(Printable(file_->path()), ": tensor '", Printable(name), "' ", problem));
  }

  std::shared_ptr<const MappedFile> file_;
  SafetensorsHeader header_;
};

using NamedEntry = std::pair<std::string, TensorEntry>;

absl::StatusOr<std::vector<NamedEntry>> InFileOrder(const std::vector<std::string>& names,
                                                    const TensorSource& source) {
  std::vector<NamedEntry> ordered;
  for (const std::string& name : names) {
    const auto found = source.entries().find(name);
    if (found == source.entries().end() || SafetensorsDtype(found->second.dtype).empty()) {
      return InternalError(absl::StrCat("tensor '", Printable(name),
                                        "' cannot be written: it is not there, not on the CPU, or "
                                        "not of a dtype of safetensors"));
    }
    ordered.emplace_back(name, found->second);
  }
  std::sort(ordered.begin(), ordered.end(), [](const NamedEntry& a, const NamedEntry& b) {
    return StandsBefore(a.first, a.second.dtype, b.first, b.second.dtype);
  });
  return ordered;
}

absl::StatusOr<SafetensorsHeader> MakeHeader(const std::vector<NamedEntry>& ordered) {
  SafetensorsHeader header;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : ordered) {
    SafetensorsEntry entry;
    entry.dtype = SafetensorsDtype(tensor.dtype);
    entry.shape.assign(tensor.shape.begin(), tensor.shape.end());
    entry.begin = offset;
    offset += TensorBytes(tensor);
    entry.end = offset;
    if (name == "__metadata__" || !header.tensors.emplace(name, entry).second) {
      return InternalError(absl::StrCat("two tensors called '", Printable(name),
                                        "', or a reserved name, in one file"));
    }
  }
  return header;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  return Open(std::move(file));
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    std::shared_ptr<const MappedFile> file) {
  ASSIGN_OR_RETURN(SafetensorsHeader header,
                   ParseSafetensorsHeader(file->path(), file->data(), file->size()));
  return std::make_shared<const MappedSafetensors>(std::move(file), std::move(header));
}

std::string SafetensorsDtype(c10::ScalarType dtype) {
  for (const DtypeName& known : kDtypes) {
    if (dtype == known.dtype) return known.name;
  }
  return "";
}

c10::ScalarType DtypeOfSafetensors(const std::string& name) {
  for (const DtypeName& known : kDtypes) {
    if (name == known.name) return known.dtype;
  }
  return c10::ScalarType::Undefined;
}

bool StandsBefore(const std::string& a, c10::ScalarType a_dtype, const std::string& b,
                  c10::ScalarType b_dtype) {
  const size_t a_size = c10::elementSize(a_dtype), b_size = c10::elementSize(b_dtype);
  return a_size != b_size ? a_size > b_size : a < b;
}

absl::StatusOr<ChunkedDigest> WriteSafetensors(const std::string& path,
                                               const std::vector<std::string>& names,
                                               const TensorSource& source,
                                               const std::map<std::string, std::string>& metadata,
                                               int64_t chunk_bytes) {
  ASSIGN_OR_RETURN(const std::vector<NamedEntry> ordered, InFileOrder(names, source));
  ASSIGN_OR_RETURN(SafetensorsHeader header, MakeHeader(ordered));
  header.metadata = metadata;
  ASSIGN_OR_RETURN(const std::string header_bytes, SafetensorsHeaderBytes(header));
  ASSIGN_OR_RETURN(const std::unique_ptr<HashedFile> file, HashedFile::Create(path, chunk_bytes));
  RETURN_IF_ERROR(file->Write(header_bytes.data(), header_bytes.size()));
  for (const auto& [name, entry] : ordered) {
    ASSIGN_OR_RETURN(const at::Tensor tensor, source.Read(name));
    if (tensor.scalar_type() != entry.dtype || tensor.sizes() != entry.shape) {
      return InternalError(
          absl::StrCat("tensor '", Printable(name), "' is not what its source says it is"));
    }
    const at::Tensor dense = tensor.cpu().contiguous();
    RETURN_IF_ERROR(file->Write(dense.const_data_ptr(), dense.nbytes()));
  }
  return file->Commit();
}

absl::StatusOr<ChunkedDigest> WriteSafetensors(const std::string& path,
                                               const std::vector<NamedTensor>& tensors,
                                               const std::map<std::string, std::string>& metadata,
                                               int64_t chunk_bytes) {
  std::vector<std::string> names;
  for (const NamedTensor& named : tensors) names.push_back(named.name);
  return WriteSafetensors(path, names, TensorsInMemory(tensors), metadata, chunk_bytes);
}

}  // namespace hypermoe
