// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "runtime/status.h"

namespace hypermoe {

// Encodes one text after another, each given in pieces that may be cut anywhere, within a character
// too: the ids do not depend on the cuts. What more text could still change is held back. For one
// thread; the tokenizer must outlive it.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  // Appends to `ids` what is certain so far.
  virtual void Write(std::string_view piece, std::vector<int32_t>* ids) = 0;
  // Appends what was held back; the next piece begins another text.
  virtual void Finish(std::vector<int32_t>* ids) = 0;
};

// Span corruption marks its gaps with these; no text encodes to one.
constexpr int32_t kSentinels = 100;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Ids are below this; a model's vocab_size must be at least as large.
  virtual int64_t vocab_size() const = 0;
  // Stands after every document; no text encodes to it.
  virtual int32_t end_of_text() const = 0;
  // The id of <extra_id_0>, the first of kSentinels: <extra_id_k> is k below it. Not all tokenizers
  // have them. Where they lie above vocab_size(), only a model that uses them needs to know them.
  virtual std::optional<int32_t> first_sentinel() const { return std::nullopt; }
  virtual std::unique_ptr<TextEncoder> NewEncoder() const = 0;
  // The inverse, up to what a tokenizer's normalisation changes; end_of_text becomes nothing, a
  // sentinel its name. The bytes need not be whole characters. An id that the tokenizer does not
  // know (a model's vocabulary may be larger) is DataError.
  virtual absl::StatusOr<std::string> Decode(absl::Span<const int64_t> ids) const = 0;

  // Appends the ids of a whole text to `ids`. Any bytes are a text, ill-formed UTF-8 too.
  void Encode(std::string_view text, std::vector<int32_t>* ids) const;
};

// "byte": ids 0 to 255 are the bytes of the text, 256 is end of text; sentinels are 356 downwards.
// "gpt2:DIR": byte pairs by DIR/vocab.json and DIR/merges.txt (gpt2_tokenizer.h).
// "spm:FILE": a SentencePiece model (sentencepiece_tokenizer.h).
// Other names are UsageError.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const std::string& name);

}  // namespace hypermoe
