// Token files in Megatron's format: PREFIX.bin holds the ids of all documents one after the other, PREFIX.idx their
// lengths and offsets (magic MMIDIDX\0\0, version 1, dtype code, counts, lengths, byte offsets, document index).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "runtime/status.h"

namespace hypermoe {

// Writes a token file in constant memory. Nothing exists under the final names until Finish; what was written is removed
// if the writer is destroyed before.
class TokenFileWriter {
 public:
  // Ids below 65536 are kept in 16 bits, others in 32. Creates missing folders.
  static absl::StatusOr<std::unique_ptr<TokenFileWriter>> Create(const std::string& prefix, int64_t vocab_size);
  virtual ~TokenFileWriter() = default;
  // Documents may come in pieces: Append any number of times, then EndDocument.
  virtual absl::Status Append(absl::Span<const int32_t> ids) = 0;
  virtual absl::Status EndDocument() = 0;
  // Makes the files durable under their names, replacing older ones only now.
  virtual absl::Status Finish() = 0;
};

// A token file mapped into memory.
class TokenFile {
 public:
  // Checks the whole index against both files' sizes before anything is read. Errors (exit code 65; 74 if a file cannot be
  // opened) name file, field and value.
  static absl::StatusOr<std::shared_ptr<const TokenFile>> Open(const std::string& prefix);
  virtual ~TokenFile() = default;
  virtual int64_t num_tokens() const = 0;
  virtual int64_t num_documents() const = 0;
  // Copies ids [begin, begin + count) of all documents joined. The range must lie within the file.
  virtual void Read(int64_t begin, int64_t count, int64_t* ids) const = 0;
  // Identifies the content: "TOKENS:HASH" with the XXH3-128 of both files.
  virtual const std::string& fingerprint() const = 0;
};

}  // namespace hypermoe
