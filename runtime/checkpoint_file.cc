#include "runtime/checkpoint_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "parallel/progress_marks.h"
#include "runtime/tensor_source.h"
#include "runtime/xxh3.h"

namespace hypermoe {
namespace {

constexpr size_t kMaxNamed = 10;
constexpr int64_t kPieceBytes = 1 << 20;  // stays in the processor's cache until it is hashed
constexpr int64_t kLengthBytes = 8;       // of safetensors' header, before it

TensorEntry EntryOf(const CheckpointTensor& tensor) {
  return {DtypeOfSafetensors(tensor.dtype), tensor.shape};
}

}  // namespace

CheckpointFile::CheckpointFile(std::string name, const CheckpointManifest& manifest,
                               std::shared_ptr<const MappedFile> file, FileHandle handle,
                               Digests digests)
    : name_(std::move(name)),
      manifest_(manifest),
      digest_(manifest.files.at(name_)),
      file_(std::move(file)),
      handle_(std::move(handle)),
      piece_(new char[kPieceBytes]),
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
  FileHandle handle(open(file->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (handle.get() < 0) return ErrnoError(file->path(), "open the file", errno);
  return std::unique_ptr<CheckpointFile>(
      new CheckpointFile(name, manifest, std::move(file), std::move(handle), digests));
}

absl::Status CheckpointFile::CheckChunk(int64_t index) {
  if (checked_[index] || digests_ == Digests::kIgnore) return absl::OkStatus();
  const int64_t begin = index * digest_.chunk_bytes;
  const int64_t end = begin + std::min(digest_.chunk_bytes, digest_.bytes - begin);
  RETURN_IF_ERROR(CompareChunk(begin, end, digest_.chunks[index]));
  MarkProgress();
  checked_[index] = true;
  return absl::OkStatus();
}

// Read, not mapped: a medium that does not give them is an error then and not a signal, and the
// kernel reads ahead. Empty where it does not.
std::string CheckpointFile::DigestOfBytes(int64_t begin, int64_t end) const {
  Xxh3 hash;
  for (int64_t at = begin; at < end;) {
    const ssize_t count = pread(handle_.get(), piece_.get(), std::min(kPieceBytes, end - at), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return {};
    hash.Update(piece_.get(), static_cast<size_t>(count));
    at += count;
  }
  return hash.Digest();
}

absl::Status CheckpointFile::CompareChunk(int64_t begin, int64_t end,
                                          const std::string& expected) const {
  const std::string found = DigestOfBytes(begin, end);
  if (found == expected) return absl::OkStatus();
  return DataError(absl::StrCat("file '", Printable(file_->path()), "' is damaged: bytes ", begin,
                                " to ", end - 1, " of ", digest_.bytes,
                                found.empty() ? " cannot be read from their medium"
                                              : " do not have the digest that manifest.json gives",
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
