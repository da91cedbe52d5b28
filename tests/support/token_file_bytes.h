// Token files byte by byte, as the format says, for tests of reader and writer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/token_file.h"

namespace hypermoe {

// `value` in `bytes` bytes, lowest first.
inline std::string Le(int bytes, int64_t value) {
  std::string text;
  for (int i = 0; i < bytes; ++i)
    text.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
  return text;
}

// An index as Megatron writes it, field by field.
struct IndexFields {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  int64_t version = 1;
  int64_t dtype = 8;
  int64_t sequences = 3;
  int64_t documents = 3;
  std::vector<int64_t> lengths = {2, 0, 3};
  std::vector<int64_t> pointers = {0, 4, 4};
  std::vector<int64_t> document_index = {0, 1, 3};
  std::string tail;

  std::string Bytes() const {
    std::string bytes = magic + Le(8, version) + Le(1, dtype) + Le(8, sequences) + Le(8, documents);
    for (const int64_t length : lengths) bytes += Le(4, length);
    for (const int64_t pointer : pointers) bytes += Le(8, pointer);
    for (const int64_t entry : document_index) bytes += Le(8, entry);
    return bytes + tail;
  }
};

// Five ids of two bytes, for the default IndexFields.
inline const std::string kFiveIds = Le(2, 10) + Le(2, 65535) + Le(2, 0) + Le(2, 300) + Le(2, 7);

inline std::vector<int64_t> Ids(const TokenFile& file, int64_t begin, int64_t count) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  file.Read(begin, count, ids.data());
  return ids;
}

}  // namespace hypermoe
