// Token files in Megatron's format, little-endian: PREFIX.bin holds the ids of all documents one
// after the other, PREFIX.idx describes them:
//
//   bytes      field
//   9          magic "MMIDIDX\0\0"
//   8          version, 1
//   1          dtype of the ids: 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16
//   8          number of sequences Q
//   8          length of the document index, documents D + 1
//   4 Q        tokens of each sequence, int32
//   8 Q        byte offset of each sequence in PREFIX.bin, int64
//   8 (D + 1)  document index, int64: document d is the sequences [index[d], index[d + 1])
//
// A document is one sequence here, or several if it has more tokens than an int32 can count.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "runtime/status.h"

namespace hypermoe {

// Writes a token file in constant memory. Nothing exists under the final names until Finish; what
// was written is removed if the writer is destroyed before.
class TokenFileWriter {
 public:
  // Ids below 65536 are kept in 16 bits, others in 32. Creates missing folders.
  // `max_sequence_tokens` is smaller in tests.
  static absl::StatusOr<std::unique_ptr<TokenFileWriter>> Create(
      const std::string& prefix, int64_t vocab_size,
      int64_t max_sequence_tokens = std::numeric_limits<int32_t>::max());
  virtual ~TokenFileWriter() = default;
  // Documents may come in pieces: Append any number of times, then EndDocument.
  virtual absl::Status Append(absl::Span<const int32_t> ids) = 0;
  virtual absl::Status EndDocument() = 0;
  // Makes the files durable under their names, replacing older ones only now. The last call.
  virtual absl::Status Finish() = 0;
};

// A token file mapped into memory.
class TokenFile {
 public:
  // Checks the whole index against both files' sizes before anything is read, and reads all ids
  // once, for fingerprint() and the bounds. Errors (exit code 65; 74 if a file cannot be opened)
  // name file, field and value.
  static absl::StatusOr<std::shared_ptr<const TokenFile>> Open(const std::string& prefix);
  virtual ~TokenFile() = default;
  virtual int64_t num_tokens() const = 0;
  virtual int64_t num_documents() const = 0;
  // Copies ids [begin, begin + count) of all documents joined. The range must lie within the file.
  // Throws std::system_error if the file has been cut short since it was opened.
  virtual void Read(int64_t begin, int64_t count, int64_t* ids) const = 0;
  // Identifies the content: "TOKENS:HASH" with the XXH3-128 of both files.
  virtual const std::string& fingerprint() const = 0;
  // DataError that names the first id that is negative or not below `vocab_size`, and where it
  // stands.
  virtual absl::Status CheckIds(int64_t vocab_size) const = 0;
};

}  // namespace hypermoe
