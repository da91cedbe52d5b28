// The index of a token file (format: token_file.h).
#pragma once

#include <cstdint>

#include "runtime/file_util.h"
#include "runtime/status.h"

namespace hypermoe {

inline constexpr char kIndexMagic[] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr uint64_t kIndexVersion = 1;
// Where the fields stand.
constexpr int64_t kVersionOffset = sizeof kIndexMagic;
constexpr int64_t kDtypeOffset = kVersionOffset + 8;
constexpr int64_t kSequencesOffset = kDtypeOffset + 1;
constexpr int64_t kDocumentsOffset = kSequencesOffset + 8;
constexpr int64_t kLengthsOffset = kDocumentsOffset + 8;

// Megatron's codes.
enum class TokenDtype : uint8_t {
  kUint8 = 1,
  kInt8 = 2,
  kInt16 = 3,
  kInt32 = 4,
  kInt64 = 5,
  kUint16 = 8
};

// Bytes of an id; 0 for a code that is none of the above.
int64_t BytesOf(TokenDtype dtype);

struct TokenIndex {
  TokenDtype dtype = TokenDtype::kInt32;
  int64_t num_documents = 0;
  int64_t num_tokens = 0;
};

// Checks every field of the index in `idx` against its size, the other fields and `bin_bytes`, the
// size of the .bin file: sequences follow each other without gaps and fill it exactly. DataError.
absl::StatusOr<TokenIndex> CheckTokenIndex(const MappedFile& idx, int64_t bin_bytes);

}  // namespace hypermoe
