#include "runtime/tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/gpt2_tokenizer.h"
#include "runtime/nearest_name.h"
#include "runtime/sentencepiece_tokenizer.h"

namespace hypermoe {
namespace {

constexpr int32_t kByteEndOfText = 256;
constexpr int32_t kByteFirstSentinel = kByteEndOfText + kSentinels;
constexpr std::string_view kGpt2Prefix = "gpt2:";
constexpr std::string_view kSentencePiecePrefix = "spm:";

class ByteEncoder : public TextEncoder {
 public:
  void Write(std::string_view piece, std::vector<int32_t>* ids) override {
    const size_t before = ids->size();
    ids->resize(before + piece.size());
    std::transform(
        piece.begin(), piece.end(), ids->begin() + static_cast<std::ptrdiff_t>(before),
        [](char byte) { return static_cast<int32_t>(static_cast<unsigned char>(byte)); });
  }
  void Finish(std::vector<int32_t>*) override {}
};

class ByteTokenizer : public Tokenizer {
 public:
  int64_t vocab_size() const override { return kByteEndOfText + 1; }
  int32_t end_of_text() const override { return kByteEndOfText; }
  std::optional<int32_t> first_sentinel() const override { return kByteFirstSentinel; }
  std::unique_ptr<TextEncoder> NewEncoder() const override {
    return std::make_unique<ByteEncoder>();
  }

  absl::StatusOr<std::string> Decode(absl::Span<const int64_t> ids) const override {
    std::string text;
    for (const int64_t id : ids) {
      if (id < 0 || id > kByteFirstSentinel) {
        return DataError(absl::StrCat("the byte tokenizer cannot decode id ", id,
                                      ": it knows 0 to ", kByteFirstSentinel));
      }
      if (id > kByteEndOfText) {
        absl::StrAppend(&text, "<extra_id_", kByteFirstSentinel - id, ">");
      } else if (id != kByteEndOfText) {
        text.push_back(static_cast<char>(id));
      }
    }
    return text;
  }
};

}  // namespace

void Tokenizer::Encode(std::string_view text, std::vector<int32_t>* ids) const {
  const std::unique_ptr<TextEncoder> encoder = NewEncoder();
  encoder->Write(text, ids);
  encoder->Finish(ids);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const std::string& name) {
  if (name == "byte") return std::make_unique<ByteTokenizer>();
  if (name.starts_with(kGpt2Prefix) && name.size() > kGpt2Prefix.size()) {
    return MakeGpt2Tokenizer(name.substr(kGpt2Prefix.size()));
  }
  if (name.starts_with(kSentencePiecePrefix) && name.size() > kSentencePiecePrefix.size()) {
    return MakeSentencePieceTokenizer(name.substr(kSentencePiecePrefix.size()));
  }
  if (name == "spm" || name == kSentencePiecePrefix) {
    return UsageError(absl::StrCat("the tokenizer '", name,
                                   "' names no model: give spm:FILE, where FILE is a SentencePiece "
                                   "model such as T5's spiece.model"));
  }
  if (name == "gpt2" || name == kGpt2Prefix) {
    return UsageError(absl::StrCat("the tokenizer '", name,
                                   "' names no vocabulary: give gpt2:DIR, where the folder DIR "
                                   "holds vocab.json and merges.txt"));
  }
  return UsageError(absl::StrCat("unknown tokenizer '", name,
                                 "': known are byte, gpt2:DIR, spm:FILE; did you mean '",
                                 NearestName(name, {"byte", "gpt2:DIR", "spm:FILE"}), "'?"));
}

}  // namespace hypermoe
