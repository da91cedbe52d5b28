#include "runtime/checkpoint_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/progress_marks.h"
#include "runtime/tensor_source.h"

namespace hypermoe {
namespace {

constexpr size_t kMaxNamed = 10;
constexpr int64_t kLengthBytes = 8;  // of safetensors' header, before it

// Has the kernel read `size` bytes of a mapping now, so that a medium that does not give them is an
// error here and not a signal later; whether it gives them.
bool IsReadable(const char* begin, int64_t size) {
#ifdef MADV_POPULATE_READ
  const auto page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t page = address & ~(page_bytes - 1);
  // Any other error says nothing about the bytes, such as EINVAL of a kernel before 5.14.
  if (madvise(reinterpret_cast<void*>(page), size + (address - page), MADV_POPULATE_READ) != 0)
    return errno != EFAULT && errno != EHWPOISON;
#endif
  return true;
}

TensorEntry EntryOf(const CheckpointTensor& tensor) {
  return {DtypeOfSafetensors(tensor.dtype), tensor.shape};
}

}  // namespace

CheckpointFile::CheckpointFile(std::string name, const CheckpointManifest& manifest,
                               std::shared_ptr<const MappedFile> file, Digests digests)
    : name_(std::move(name)),
      manifest_(manifest),
      digest_(manifest.files.at(name_)),
      file_(std::move(file)),
      digests_(digests),
      checked_(digest_.chunks.size()) {}

absl::StatusOr<std::unique_ptr<CheckpointFile>> CheckpointFile::Open(
    const std::string& checkpoint, const std::string& name, const CheckpointManifest& manifest,
    Digests digests) {
  ASSIGN_OR_RETURN(
      std::shared_ptr<const MappedFile> file,
      MappedFile::Open(absl::StrCat(checkpoint, "/", name), MappedFile::Links::kRefuse));
  const int64_t expected = manifest.files.at(name).bytes;
  if (static_cast<int64_t>(file->size()) != expected) {
    return DataError(absl::StrCat("file '", Printable(file->path()), "' has ", file->size(),
                                  " bytes, expected ", expected, "; use another checkpoint"));
  }
  return std::unique_ptr<CheckpointFile>(
      new CheckpointFile(name, manifest, std::move(file), digests));
}

RowRange CheckpointFile::BytesOf(int64_t chunk) const {
  const int64_t begin = chunk * digest_.chunk_bytes;
  return {begin, begin + std::min(digest_.chunk_bytes, digest_.bytes - begin)};
}

// Whether the medium gives the chunk. The next one is read meanwhile, on a thread of its own: the
// medium works while this one is hashed and copied.
bool CheckpointFile::WaitFor(int64_t chunk) {
  const auto read = [file = file_](RowRange bytes) {
    return IsReadable(file->data() + bytes.begin, bytes.size());
  };
  const bool readable =
      coming_.valid() && coming_chunk_ == chunk ? coming_.get() : read(BytesOf(chunk));
  if (chunk + 1 < num_chunks() && !checked_[chunk + 1]) {
    coming_chunk_ = chunk + 1;
    coming_ = std::async(std::launch::async, read, BytesOf(chunk + 1));
  }
  return readable;
}

absl::Status CheckpointFile::CheckChunk(int64_t index) {
  if (checked_[index]) return absl::OkStatus();
  const RowRange bytes = BytesOf(index);
  const bool readable = WaitFor(index);
  if (digests_ == Digests::kCheck)
    RETURN_IF_ERROR(CompareChunk(bytes.begin, bytes.end, readable, digest_.chunks[index]));
  MarkProgress();
  checked_[index] = true;
  return absl::OkStatus();
}

absl::Status CheckpointFile::CompareChunk(int64_t begin, int64_t end, bool readable,
                                          const std::string& expected) const {
  if (readable && DigestOf(file_->data() + begin, end - begin).xxh3_128 == expected)
    return absl::OkStatus();
  return DataError(absl::StrCat("file '", Printable(file_->path()), "' is damaged: bytes ", begin,
                                " to ", end - 1, " of ", digest_.bytes,
                                readable ? " do not have the digest that manifest.json gives"
                                         : " cannot be read from their medium",
                                "; there lie ", TensorsIn(begin, end), "; use another checkpoint"));
}

absl::Status CheckpointFile::CheckBytes(int64_t begin, int64_t end) {
  for (int64_t i = begin / digest_.chunk_bytes; i * digest_.chunk_bytes < end; ++i)
    RETURN_IF_ERROR(CheckChunk(i));
  return absl::OkStatus();
}

absl::Status CheckpointFile::OpenHeader() {
  if (safetensors_ != nullptr) return absl::OkStatus();
  // As far as the length reaches; one that makes no sense is for the parser to refuse.
  RETURN_IF_ERROR(CheckBytes(0, std::min(kLengthBytes, digest_.bytes)));
  if (digest_.bytes > kLengthBytes) {
    uint64_t length = 0;
    std::memcpy(&length, file_->data(), kLengthBytes);
    const auto rest = static_cast<uint64_t>(digest_.bytes - kLengthBytes);
    RETURN_IF_ERROR(CheckBytes(0, kLengthBytes + static_cast<int64_t>(std::min(length, rest))));
  }
  ASSIGN_OR_RETURN(safetensors_, SafetensorsFile::Open(file_));
  return absl::OkStatus();
}

// The digests cover the file, not that the manifest's words about the tensor are true.
absl::Status CheckpointFile::CheckEntry(const std::string& tensor) const {
  ASSIGN_OR_RETURN(const TensorEntry found, safetensors_->Entry(tensor));
  const TensorEntry listed = EntryOf(manifest_.tensors.at(tensor));
  if (found.dtype == listed.dtype && found.shape == listed.shape) return absl::OkStatus();
  return DataError(absl::StrCat("tensor '", Printable(tensor), "' is not in file '",
                                Printable(file_->path()),
                                "' as manifest.json says; use another checkpoint"));
}

absl::StatusOr<at::Tensor> CheckpointFile::Read(const std::string& tensor) {
  RETURN_IF_ERROR(OpenHeader());
  RETURN_IF_ERROR(CheckEntry(tensor));
  ASSIGN_OR_RETURN(const auto range, safetensors_->Range(tensor));
  RETURN_IF_ERROR(CheckBytes(range.first, range.second));
  return safetensors_->Get(tensor);
}

absl::Status CheckpointFile::CheckHeader() {
  RETURN_IF_ERROR(OpenHeader());
  size_t listed = 0;
  for (const auto& [name, tensor] : manifest_.tensors) {
    if (tensor.file != name_) continue;
    RETURN_IF_ERROR(CheckEntry(name));
    ++listed;
  }
  if (safetensors_->names().size() == listed) return absl::OkStatus();
  return DataError(absl::StrCat("file '", Printable(file_->path()), "' holds ",
                                safetensors_->names().size(), " tensors, manifest.json lists ",
                                listed, " of it; use another checkpoint"));
}

// What lies in bytes [begin, end), by the order in which WriteSafetensors lays tensors out: where
// the header itself is damaged it cannot say.
std::string CheckpointFile::TensorsIn(int64_t begin, int64_t end) const {
  std::vector<std::pair<std::string, TensorEntry>> inside;
  int64_t data_bytes = 0;
  for (const auto& [name, tensor] : manifest_.tensors) {
    if (tensor.file != name_) continue;
    inside.emplace_back(name, EntryOf(tensor));
    data_bytes += TensorBytes(inside.back().second);
  }
  std::sort(inside.begin(), inside.end(), [](const auto& a, const auto& b) {
    return StandsBefore(a.first, a.second.dtype, b.first, b.second.dtype);
  });
  int64_t offset = digest_.bytes - data_bytes;
  std::vector<std::string> parts;
  if (begin < offset) parts.push_back("the file's header");
  size_t more = 0;
  for (const auto& [name, entry] : inside) {
    const int64_t first = offset;
    offset += TensorBytes(entry);
    if (first >= end || offset <= begin) continue;
    if (parts.size() < kMaxNamed) {
      parts.push_back(absl::StrCat("tensor '", Printable(name), "'"));
    } else {
      ++more;
    }
  }
  if (more > 0) parts.push_back(absl::StrCat(more, " more"));
  return absl::StrJoin(parts, ", ");
}

}  // namespace hypermoe
