#include "runtime/tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/nearest_name.h"

namespace hypermoe {
namespace {

constexpr int32_t kByteEndOfText = 256;

class ByteTokenizer : public Tokenizer {
 public:
  int64_t vocab_size() const override { return kByteEndOfText + 1; }
  int32_t end_of_text() const override { return kByteEndOfText; }

  void Encode(std::string_view text, std::vector<int32_t>* ids) const override {
    const size_t before = ids->size();
    ids->resize(before + text.size());
    std::transform(
        text.begin(), text.end(), ids->begin() + static_cast<std::ptrdiff_t>(before),
        [](char byte) { return static_cast<int32_t>(static_cast<unsigned char>(byte)); });
  }

  absl::StatusOr<std::string> Decode(absl::Span<const int64_t> ids) const override {
    std::string text;
    for (const int64_t id : ids) {
      if (id < 0 || id > kByteEndOfText) {
        return DataError(absl::StrCat("the byte tokenizer cannot decode id ", id,
                                      ": it knows 0 to ", kByteEndOfText));
      }
      if (id != kByteEndOfText) text.push_back(static_cast<char>(id));
    }
    return text;
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const std::string& name) {
  static const std::vector<std::string> known = {"byte"};
  if (name == known[0]) return std::make_unique<ByteTokenizer>();
  return UsageError(absl::StrCat("unknown tokenizer '", name, "': known are ",
                                 absl::StrJoin(known, ", "), "; did you mean '",
                                 NearestName(name, known), "'?"));
}

}  // namespace hypermoe
