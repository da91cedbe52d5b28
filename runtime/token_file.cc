#include "runtime/token_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "parallel/progress_marks.h"
#include "runtime/file_util.h"
#include "runtime/input_file.h"
#include "runtime/token_index.h"
#include "runtime/xxh3.h"

namespace hypermoe {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;  // a multiple of every id's size

// Calls `body` with the ids of a file as they are stored.
template <typename Body>
void WithIds(TokenDtype dtype, const char* bytes, Body body) {
  switch (dtype) {
    case TokenDtype::kUint8:
      return body(reinterpret_cast<const uint8_t*>(bytes));
    case TokenDtype::kInt8:
      return body(reinterpret_cast<const int8_t*>(bytes));
    case TokenDtype::kInt16:
      return body(reinterpret_cast<const int16_t*>(bytes));
    case TokenDtype::kInt32:
      return body(reinterpret_cast<const int32_t*>(bytes));
    case TokenDtype::kInt64:
      return body(reinterpret_cast<const int64_t*>(bytes));
    case TokenDtype::kUint16:
      return body(reinterpret_cast<const uint16_t*>(bytes));
  }
}

class MappedTokenFile : public TokenFile {
 public:
  // `handle` is open on the mapped file.
  MappedTokenFile(std::shared_ptr<const MappedFile> bin, FileHandle handle, const TokenIndex& index,
                  const MappedFile& idx)
      : bin_(std::move(bin)), handle_(std::move(handle)), index_(index) {
    Scan(idx);
  }

  int64_t num_tokens() const override { return index_.num_tokens; }
  int64_t num_documents() const override { return index_.num_documents; }
  const std::string& fingerprint() const override { return fingerprint_; }

  void Read(int64_t begin, int64_t count, int64_t* ids) const override {
    // Touching a mapped page beyond the end would kill the process without a word.
    struct stat info;
    if (fstat(handle_.get(), &info) != 0 ||
        info.st_size < (begin + count) * BytesOf(index_.dtype)) {
      throw std::system_error(
          EIO, std::generic_category(),
          absl::StrCat(bin_->path(), " has been cut short while it was in use"));
    }
    WithIds(index_.dtype, bin_->data(),
            [&](const auto* stored) { std::copy_n(stored + begin, count, ids); });
  }

  absl::Status CheckIds(int64_t vocab_size) const override {
    if (index_.num_tokens == 0 || (smallest_ >= 0 && largest_ < vocab_size))
      return absl::OkStatus();
    int64_t position = 0, id = 0;
    WithIds(index_.dtype, bin_->data(), [&](const auto* stored) {
      while (stored[position] >= 0 && static_cast<int64_t>(stored[position]) < vocab_size)
        ++position;
      id = stored[position];
    });
    return DataError(absl::StrCat(
        bin_->path(), ": token ", position, " is id ", id, ", but ids must be 0 to ",
        vocab_size - 1,
        ": set model.vocab_size to the tokenizer's, or give the file of another tokenizer"));
  }

 private:
  // One pass over the ids, while each chunk is in the cache: hash and bounds.
  void Scan(const MappedFile& idx) {
    Xxh3 hash;
    hash.Update(idx.data(), idx.size());
    const int64_t size = static_cast<int64_t>(bin_->size());
    const int64_t id_bytes = BytesOf(index_.dtype);
    for (int64_t at = 0; at < size; at += kChunkBytes) {
      MarkProgress();
      const int64_t bytes = std::min(kChunkBytes, size - at);
      hash.Update(bin_->data() + at, static_cast<size_t>(bytes));
      WithIds(index_.dtype, bin_->data() + at, [&](const auto* stored) {
        auto low = stored[0], high = stored[0];
        for (int64_t i = 0; i < bytes / id_bytes; ++i) {
          low = std::min(low, stored[i]);
          high = std::max(high, stored[i]);
        }
        smallest_ = std::min<int64_t>(smallest_, low);
        largest_ = std::max<int64_t>(largest_, high);
      });
    }
    fingerprint_ = absl::StrCat(index_.num_tokens, ":", hash.Digest());
  }

  std::shared_ptr<const MappedFile> bin_;
  FileHandle handle_;
  TokenIndex index_;
  std::string fingerprint_;
  int64_t smallest_ = std::numeric_limits<int64_t>::max(),
          largest_ = std::numeric_limits<int64_t>::min();
};

}  // namespace

absl::StatusOr<std::shared_ptr<const TokenFile>> TokenFile::Open(const std::string& prefix) {
  if (absl::EndsWith(prefix, ".bin") || absl::EndsWith(prefix, ".idx")) {
    const std::string stem = prefix.substr(0, prefix.size() - 4);
    if (access((stem + ".idx").c_str(), F_OK) == 0) {
      return IoError(absl::StrCat("token file '", prefix, "': give '", stem,
                                  "', the name without its ending"));
    }
  }
  const std::string idx_path = prefix + ".idx", bin_path = prefix + ".bin";
  if (access(idx_path.c_str(), F_OK) != 0) {
    return IoError(absl::StrCat("there is no token file '", prefix, "' (", idx_path,
                                " cannot be found): make one with `hypermoe prepare --output ",
                                prefix, "`"));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> idx, MappedFile::Open(idx_path));
  ASSIGN_OR_RETURN(FileHandle handle, OpenInput(bin_path));
  ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> bin, MappedFile::Open(bin_path));
  ASSIGN_OR_RETURN(const TokenIndex index,
                   CheckTokenIndex(*idx, static_cast<int64_t>(bin->size())));
  return std::make_shared<const MappedTokenFile>(std::move(bin), std::move(handle), index, *idx);
}

}  // namespace hypermoe
