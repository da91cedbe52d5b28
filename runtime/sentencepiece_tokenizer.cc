#include "runtime/sentencepiece_tokenizer.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/file_util.h"
#include "runtime/sentencepiece_file.h"
#include "runtime/sentencepiece_library.h"

namespace hypermoe {
namespace {

// Where the last word of `text` begins whose neighbours do not matter to what stands before it: no
// normalisation joins ASCII letters and digits with a space. 0 if there is none.
size_t LastCut(std::string_view text) {
  for (size_t i = text.size(); i-- > 2;) {
    if (absl::ascii_isalnum(text[i]) && text[i - 1] == ' ' && absl::ascii_isalnum(text[i - 2]))
      return i;
  }
  return 0;
}

class SentencePieceEncoder : public TextEncoder {
 public:
  SentencePieceEncoder(const SentencePieceLibrary& library, bool words_are_independent)
      : library_(library), words_are_independent_(words_are_independent) {}

  void Write(std::string_view piece, std::vector<int32_t>* ids) override {
    held_.append(piece);
    // Text without a cut would be searched from its end each time: waiting until it has doubled
    // keeps the work proportional to its length.
    if (!words_are_independent_ || held_.size() < 2 * uncut_) return;
    const size_t cut = LastCut(held_);
    library_.Encode(std::string_view(held_).substr(0, cut), ids);
    held_.erase(0, cut);
    uncut_ = held_.size();
  }

  void Finish(std::vector<int32_t>* ids) override {
    library_.Encode(held_, ids);
    held_.clear();
    uncut_ = 0;
  }

 private:
  const SentencePieceLibrary& library_;
  const bool words_are_independent_;
  std::string held_;
  size_t uncut_ = 0;  // bytes of held_ that are known to have no cut
};

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<SentencePieceLibrary> library, bool words_are_independent)
      : library_(std::move(library)), words_are_independent_(words_are_independent) {}

  int64_t vocab_size() const override { return library_->size() + kSentinels; }
  int32_t end_of_text() const override { return library_->end_id(); }
  std::optional<int32_t> first_sentinel() const override {
    return library_->size() + kSentinels - 1;
  }
  std::unique_ptr<TextEncoder> NewEncoder() const override {
    return std::make_unique<SentencePieceEncoder>(*library_, words_are_independent_);
  }

  absl::StatusOr<std::string> Decode(absl::Span<const int64_t> ids) const override {
    std::vector<std::string> parts;
    std::vector<int32_t> pieces;
    const auto end_part = [&] {
      if (!pieces.empty()) parts.push_back(library_->Decode(pieces));
      pieces.clear();
    };
    for (const int64_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        return DataError(absl::StrCat("the SentencePiece tokenizer cannot decode id ", id,
                                      ": it knows 0 to ", vocab_size() - 1));
      }
      if (id >= library_->size()) {
        end_part();
        parts.push_back(absl::StrCat("<extra_id_", vocab_size() - 1 - id, ">"));
      } else if (id != end_of_text()) {
        pieces.push_back(static_cast<int32_t>(id));
      }
    }
    end_part();
    return absl::StrJoin(parts, " ");
  }

 private:
  const std::unique_ptr<SentencePieceLibrary> library_;
  const bool words_are_independent_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(const std::string& path) {
  ASSIGN_OR_RETURN(const SentencePieceFile file, ReadSentencePieceFile(path));
  std::string problem;
  std::unique_ptr<SentencePieceLibrary> library =
      SentencePieceLibrary::Load(file.content, &problem);
  if (library != nullptr && library->end_id() < 0) problem = "it has no piece that ends a text";
  if (!problem.empty()) {
    return DataError(absl::StrCat(Printable(path), ": SentencePiece cannot use it: ",
                                  Printable(problem), ": give a model of T5's kind, with </s>"));
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(library), file.words_are_independent);
}

}  // namespace hypermoe
