#include "runtime/token_index.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace hypermoe {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token files are read and written as they lie in memory");

// Fields after the dtype's single byte are not aligned.
template <typename T>
T LoadAt(const MappedFile& file, int64_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

absl::Status Bad(const MappedFile& idx, const std::string& what) {
  return DataError(
      absl::StrCat(idx.path(), ": ", what, "; make the file again with `hypermoe prepare`"));
}

struct Counts {
  int64_t sequences, documents;  // documents: length of the index, one more than there are
};

absl::StatusOr<Counts> CheckHeader(const MappedFile& idx) {
  if (idx.size() < static_cast<size_t>(kLengthsOffset) ||
      std::memcmp(idx.data(), kIndexMagic, sizeof kIndexMagic) != 0) {
    return Bad(
        idx,
        absl::StrCat("not a token index: it must begin with the magic MMIDIDX and have at least ",
                     kLengthsOffset, " bytes (it has ", idx.size(), ")"));
  }
  if (const uint64_t version = LoadAt<uint64_t>(idx, kVersionOffset); version != kIndexVersion) {
    return Bad(idx, absl::StrCat("version is ", version, ", expected ", kIndexVersion));
  }
  if (const uint8_t code = LoadAt<uint8_t>(idx, kDtypeOffset);
      BytesOf(static_cast<TokenDtype>(code)) == 0) {
    return Bad(
        idx, absl::StrCat(
                 "dtype code is ", code,
                 ", expected 1 (uint8), 2 (int8), 3 (int16), 4 (int32), 5 (int64) or 8 (uint16)"));
  }
  const uint64_t sequences = LoadAt<uint64_t>(idx, kSequencesOffset);
  const uint64_t documents = LoadAt<uint64_t>(idx, kDocumentsOffset);
  const uint64_t room = idx.size() - static_cast<size_t>(kLengthsOffset);
  // Each bound first, so that the products cannot wrap.
  if (sequences > room / 12 || documents > room / 8 || sequences * 12 + documents * 8 != room) {
    return Bad(idx, absl::StrCat("the file has ", idx.size(), " bytes, but ", sequences,
                                 " sequences and a document index of ", documents,
                                 " entries need another size: it is cut short or damaged"));
  }
  return Counts{static_cast<int64_t>(sequences), static_cast<int64_t>(documents)};
}

// Lengths and offsets; the number of tokens.
absl::StatusOr<int64_t> CheckSequences(const MappedFile& idx, int64_t sequences, int64_t id_bytes,
                                       int64_t bin_bytes) {
  const int64_t pointers = kLengthsOffset + 4 * sequences;
  int64_t tokens = 0;
  for (int64_t i = 0; i < sequences; ++i) {
    const int32_t length = LoadAt<int32_t>(idx, kLengthsOffset + 4 * i);
    if (length < 0) return Bad(idx, absl::StrCat("sequence ", i, " has length ", length));
    const int64_t pointer = LoadAt<int64_t>(idx, pointers + 8 * i);
    if (pointer != tokens * id_bytes) {
      return Bad(idx, absl::StrCat("sequence ", i, " begins at byte ", pointer, ", expected ",
                                   tokens * id_bytes, ", the end of the one before"));
    }
    tokens += length;
    if (tokens > bin_bytes / id_bytes) {
      return Bad(idx, absl::StrCat("sequence ", i, " ends at byte ", tokens * id_bytes,
                                   ", but the .bin file has ", bin_bytes));
    }
  }
  if (tokens * id_bytes != bin_bytes) {
    return Bad(idx, absl::StrCat("its sequences have ", tokens * id_bytes,
                                 " bytes, but the .bin file has ", bin_bytes));
  }
  return tokens;
}

absl::Status CheckDocuments(const MappedFile& idx, const Counts& counts) {
  const int64_t offset = kLengthsOffset + 12 * counts.sequences;
  if (counts.documents < 1)
    return Bad(idx, "the document index is empty, expected at least one entry");
  int64_t before = 0;
  for (int64_t i = 0; i < counts.documents; ++i) {
    const int64_t entry = LoadAt<int64_t>(idx, offset + 8 * i);
    if (i == 0 ? entry != 0 : entry < before) {
      return Bad(idx, absl::StrCat("entry ", i, " of the document index is ", entry, ", expected ",
                                   i == 0 ? "" : "at least ", before));
    }
    before = entry;
  }
  if (before != counts.sequences) {
    return Bad(idx, absl::StrCat("the document index ends at sequence ", before, ", expected ",
                                 counts.sequences));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t BytesOf(TokenDtype dtype) {
  switch (dtype) {
    case TokenDtype::kUint8:
    case TokenDtype::kInt8:
      return 1;
    case TokenDtype::kInt16:
    case TokenDtype::kUint16:
      return 2;
    case TokenDtype::kInt32:
      return 4;
    case TokenDtype::kInt64:
      return 8;
  }
  return 0;
}

absl::StatusOr<TokenIndex> CheckTokenIndex(const MappedFile& idx, int64_t bin_bytes) {
  ASSIGN_OR_RETURN(const Counts counts, CheckHeader(idx));
  TokenIndex index;
  index.dtype = static_cast<TokenDtype>(LoadAt<uint8_t>(idx, kDtypeOffset));
  index.num_documents = counts.documents - 1;
  ASSIGN_OR_RETURN(index.num_tokens,
                   CheckSequences(idx, counts.sequences, BytesOf(index.dtype), bin_bytes));
  RETURN_IF_ERROR(CheckDocuments(idx, counts));
  return index;
}

}  // namespace hypermoe
