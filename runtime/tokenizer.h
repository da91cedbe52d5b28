// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "runtime/status.h"

namespace hypermoe {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Ids are below this; a model's vocab_size must be at least as large.
  virtual int64_t vocab_size() const = 0;
  // Stands after every document; no text encodes to it.
  virtual int32_t end_of_text() const = 0;
  // Appends the ids of `text` to `ids`.
  virtual void Encode(std::string_view text, std::vector<int32_t>* ids) const = 0;
  // The inverse; end_of_text becomes nothing. The bytes need not be whole characters. An id that
  // the tokenizer does not know (a model's vocabulary may be larger) is DataError.
  virtual absl::StatusOr<std::string> Decode(absl::Span<const int64_t> ids) const = 0;
};

// "byte": ids 0 to 255 are the bytes of the text, 256 is end of text. Other names are UsageError.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const std::string& name);

}  // namespace hypermoe
