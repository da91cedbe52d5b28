#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/file_util.h"
#include "runtime/pending_file.h"
#include "runtime/token_file.h"
#include "runtime/token_index.h"

namespace hypermoe {
namespace {

constexpr int64_t kUint16Ids = 65536;
constexpr size_t kChunkEntries = 1 << 16;

class PendingTokenFile : public TokenFileWriter {
 public:
  PendingTokenFile(std::unique_ptr<PendingFile> bin, std::unique_ptr<PendingFile> idx,
                   int64_t vocab_size, int64_t max_sequence_tokens)
      : bin_(std::move(bin)),
        idx_(std::move(idx)),
        vocab_size_(vocab_size),
        max_sequence_tokens_(max_sequence_tokens),
        dtype_(vocab_size <= kUint16Ids ? TokenDtype::kUint16 : TokenDtype::kInt32) {}

  // Lengths follow the header, so they are written as they become known; the counts are filled in
  // at the end.
  absl::Status Begin() {
    RETURN_IF_ERROR(idx_->Append(kIndexMagic, sizeof kIndexMagic));
    RETURN_IF_ERROR(idx_->Append(&kIndexVersion, sizeof kIndexVersion));
    RETURN_IF_ERROR(idx_->Append(&dtype_, sizeof dtype_));
    const uint64_t later[2] = {0, 0};
    return idx_->Append(later, sizeof later);
  }

  absl::Status Append(absl::Span<const int32_t> ids) override {
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size_) {
        return InternalError(absl::StrCat("a tokenizer of ", vocab_size_, " ids made id ", id));
      }
    }
    while (!ids.empty()) {
      if (sequence_tokens_ == max_sequence_tokens_) RETURN_IF_ERROR(EndSequence());
      const size_t count = std::min<size_t>(
          ids.size(), static_cast<size_t>(max_sequence_tokens_ - sequence_tokens_));
      RETURN_IF_ERROR(AppendIds(ids.subspan(0, count)));
      sequence_tokens_ += static_cast<int64_t>(count);
      ids.remove_prefix(count);
    }
    return absl::OkStatus();
  }

  absl::Status EndDocument() override {
    RETURN_IF_ERROR(EndSequence());
    ++documents_;
    if (const int64_t extra = sequences_ - documents_; extra != extra_sequences_) {
      split_documents_.push_back({documents_, extra});
      extra_sequences_ = extra;
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    RETURN_IF_ERROR(WritePointers());
    RETURN_IF_ERROR(WriteDocuments());
    const uint64_t counts[2] = {static_cast<uint64_t>(sequences_),
                                static_cast<uint64_t>(documents_ + 1)};
    RETURN_IF_ERROR(idx_->WriteAt(kSequencesOffset, counts, sizeof counts));
    RETURN_IF_ERROR(bin_->Sync());
    RETURN_IF_ERROR(idx_->Sync());
    // An old index must never describe the new ids, wherever this is interrupted.
    if (unlink(idx_->path().c_str()) != 0 && errno != ENOENT)
      return ErrnoError(idx_->path(), "replace", errno);
    RETURN_IF_ERROR(bin_->Publish());
    RETURN_IF_ERROR(idx_->Publish());
    return SyncFolder(ParentFolder(idx_->path()));
  }

 private:
  absl::Status AppendIds(absl::Span<const int32_t> ids) {
    if (dtype_ == TokenDtype::kInt32) return bin_->Append(ids.data(), ids.size() * sizeof(int32_t));
    narrow_.assign(ids.begin(), ids.end());
    return bin_->Append(narrow_.data(), narrow_.size() * sizeof(uint16_t));
  }

  absl::Status EndSequence() {
    const int32_t length = static_cast<int32_t>(sequence_tokens_);
    sequence_tokens_ = 0;
    ++sequences_;
    return idx_->Append(&length, sizeof length);
  }

  absl::Status WritePointers() {
    std::vector<int32_t> lengths(kChunkEntries);
    std::vector<int64_t> pointers(kChunkEntries);
    int64_t pointer = 0;
    for (int64_t begin = 0; begin < sequences_; begin += static_cast<int64_t>(kChunkEntries)) {
      const size_t count = std::min<size_t>(kChunkEntries, static_cast<size_t>(sequences_ - begin));
      RETURN_IF_ERROR(
          idx_->ReadAt(kLengthsOffset + 4 * begin, lengths.data(), count * sizeof(int32_t)));
      for (size_t i = 0; i < count; ++i) {
        pointers[i] = pointer;
        pointer += lengths[i] * BytesOf(dtype_);
      }
      RETURN_IF_ERROR(idx_->Append(pointers.data(), count * sizeof(int64_t)));
    }
    return absl::OkStatus();
  }

  absl::Status WriteDocuments() {
    size_t next_split = 0;
    int64_t extra = 0;
    for (int64_t document = 0; document <= documents_; ++document) {
      if (next_split < split_documents_.size() && split_documents_[next_split].first == document) {
        extra = split_documents_[next_split++].second;
      }
      const int64_t sequence = document + extra;
      RETURN_IF_ERROR(idx_->Append(&sequence, sizeof sequence));
    }
    return absl::OkStatus();
  }

  std::unique_ptr<PendingFile> bin_, idx_;
  int64_t vocab_size_, max_sequence_tokens_;
  TokenDtype dtype_;
  int64_t sequences_ = 0, documents_ = 0, sequence_tokens_ = 0, extra_sequences_ = 0;
  // (d, how many more sequences than documents there are before document d), where that changes:
  // only after a document of more than max_sequence_tokens, so this stays small.
  std::vector<std::pair<int64_t, int64_t>> split_documents_;
  std::vector<uint16_t> narrow_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFileWriter>> TokenFileWriter::Create(
    const std::string& prefix, int64_t vocab_size, int64_t max_sequence_tokens) {
  ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> bin, PendingFile::Create(prefix + ".bin"));
  ASSIGN_OR_RETURN(std::unique_ptr<PendingFile> idx, PendingFile::Create(prefix + ".idx"));
  auto writer = std::make_unique<PendingTokenFile>(std::move(bin), std::move(idx), vocab_size,
                                                   max_sequence_tokens);
  RETURN_IF_ERROR(writer->Begin());
  return writer;
}

}  // namespace hypermoe
